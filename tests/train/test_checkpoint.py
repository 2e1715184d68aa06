"""Saving, resuming on other devices, reading for inference, and what the user is told when it does not fit."""

import json
import shutil
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro_experiment import OPTIM, micro_variables
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from vps_jax import config
from vps_jax.datasets import class_table
from vps_jax.parsing import plain
from vps_jax.train import checkpoint, integrity, saving
from vps_jax.train.optimizer import make_optimizer
from vps_jax.train.sharding import make_mesh, state_sharding
from vps_jax.train.state import bytes_of, create_state
from vps_jax.types import UserError

CONFIG = config.experiment({"model": {"name": "tarvis", "backbone": "swin_tiny"}})
META = {"config": json.loads(json.dumps(plain(CONFIG)))}


def make_state(step=0, shift=0.0):
    variables = jax.tree.map(lambda a: a + shift, micro_variables())
    state = create_state(variables, make_optimizer(OPTIM, variables["params"]))
    return state._replace(step=jnp.int32(step), ema=jax.tree.map(lambda a: a * 0.5, state.ema))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def open_run(folder, keep=2, owner="me"):
    return saving.Checkpoints(folder, keep=keep, owner=owner)


def steps_of(folder) -> list[int]:
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())


def listing(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("read_by", ["cpu", "gpu"])
@pytest.mark.parametrize("written_by", ["cpu", "gpu"])
def test_a_state_comes_back_on_another_number_of_devices(written_by, read_by, tmp_path, monkeypatch):
    """One process on a CPU hands orbax arrays of numpy; with GPUs or several processes these are JAX's."""
    monkeypatch.setattr("vps_jax.train.sharding.MIN_SHARDED_SIZE", 1)
    state = make_state(step=7)
    shardings = state_sharding(make_mesh(4), state)
    monkeypatch.setattr(saving, "in_host_memory", lambda: written_by == "cpu")
    run = open_run(tmp_path)
    run.save(jax.device_put(state, shardings), meta=META)
    run.close()
    assert ("_sharding" in listing(tmp_path / "checkpoints" / "7" / "ema")) == (written_by == "gpu")
    two = state_sharding(make_mesh(2, devices=jax.devices()[:2]), state)
    monkeypatch.setattr(saving, "in_host_memory", lambda: read_by == "cpu")
    run = open_run(tmp_path)
    restored = run.restore(jax.eval_shape(lambda: state), two)
    assert_same(restored, state)
    assert restored.variables["params"]["head"]["kernel"].sharding == two.variables["params"]["head"]["kernel"]
    assert restored.step.sharding == two.step
    assert run.meta() == {"step": 7, "run": "me", **META}
    run.close()
    assert_same(checkpoint.restore_for_inference(tmp_path)[1], state.ema)


def test_the_newest_and_the_best_stay_and_the_disk_check_counts_them(tmp_path):
    """Ten saves, two of them with scores."""
    run, state = open_run(tmp_path), make_state()
    for step in range(1, 11):
        run.save(make_state(step), meta=META)
        if step in (3, 6):
            run.score(step, {3: 0.9, 6: 0.2}[step])
        assert len(steps_of(tmp_path)) <= 3
    run.close()
    assert steps_of(tmp_path) == [3, 9, 10]
    # what a checkpoint takes beside its numbers is some kilobytes of json
    on_disk = integrity.bytes_on_disk(tmp_path / "checkpoints")
    assert on_disk <= 4 * (bytes_of(state) + 100_000)


def test_a_better_score_lets_the_best_one_before_go(tmp_path):
    run = open_run(tmp_path, keep=1)
    for step, score in ((1, 0.5), (2, 0.7), (3, None), (4, 0.6), (5, None)):
        run.save(make_state(step), meta=META)
        if score is not None:
            run.score(step, score)
    run.close()
    assert steps_of(tmp_path) == [2, 5]
    again = open_run(tmp_path, keep=1)  # scores are known to the next start
    again.save(make_state(6), meta=META)
    again.close()
    assert steps_of(tmp_path) == [2, 6]


def test_checkpoints_of_another_run_are_left_alone(tmp_path):
    run = open_run(tmp_path, keep=1, owner="other")
    run.save(make_state(1), meta=META)
    run.close()
    run = open_run(tmp_path, keep=1)
    for step in (2, 3):
        run.save(make_state(step), meta=META)
    run.close()
    assert steps_of(tmp_path) == [1, 3]


def test_nothing_goes_before_its_successor_is_whole(tmp_path, monkeypatch):
    """On a GPU checkpoints are written while the run goes on, and a kill may meet them."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    run = open_run(tmp_path, keep=1)
    run.save(make_state(1), meta=META)
    run.save(make_state(2), meta=META)
    assert 1 in steps_of(tmp_path)
    run.close()
    assert steps_of(tmp_path) == [2]


def test_what_goes_wrong_behind_the_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)

    def full():
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nsource location")

    monkeypatch.setattr(run._manager, "wait_until_finished", full)
    with pytest.raises(UserError, match="checkpoint 1 cannot be written to .*No space left on device\\).* none: make"):
        run.save(make_state(2), meta=META)


def test_threads_that_write_print_no_errors_but_others_do(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "excepthook", told.append)
    monkeypatch.setattr(threading, "excepthook", told.append)
    saving.hush_threads.__wrapped__()
    writer = EventFileWriter(str(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OSError):
        for _ in range(100):
            writer.add_event(event_pb2.Event(step=1))
            writer.flush()
            time.sleep(0.01)
    assert not told
    other = threading.Thread(target=lambda: 1 / 0)
    other.start()
    other.join()
    assert [error.exc_type for error in told] == [ZeroDivisionError]


def test_who_reads_leaves_what_is_being_written(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)
    run.close()
    writing = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    writing.mkdir()
    saving.Checkpoints(tmp_path, keep=2).close()
    assert writing.is_dir()
    run = open_run(tmp_path)  # clears in the background, which a save waits for
    run.save(make_state(2), meta=META)
    assert not writing.is_dir() and steps_of(tmp_path) == [1, 2]


def largest_file(folder):
    return max(integrity.files(folder), key=lambda path: path.stat().st_size * ("ema" in path.parts))


def truncate(folder):
    largest = largest_file(folder)
    largest.write_bytes(largest.read_bytes()[:-7])


def flip(folder):
    largest = largest_file(folder)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def lose_a_file(folder):
    largest_file(folder).unlink()


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def lose_checksums_and(damage):
    """As a kill leaves one that it meets before its checksums are written."""

    def both(folder):
        (folder / integrity.FILE).unlink()
        damage(folder)

    return both


def cut_the_list_of_arrays(folder):
    file = folder / "ema" / "_METADATA"
    file.write_text(file.read_text()[:100])


DAMAGES = {
    truncate: "bytes instead of", flip: "other bytes than were written", lose_a_file: "is missing",
    empty: "variables is missing", lambda folder: shutil.rmtree(folder / "meta"): "meta is missing",
    lambda folder: (folder / integrity.FILE).write_text("{"): "checksums.json cannot be read",
    lambda folder: (folder / integrity.FILE).write_text("[1]"): "checksums.json cannot be read",
    lambda folder: (folder / integrity.FILE).write_text('{"meta/metadata": 1}'): "checksums.json cannot be read",
    lose_checksums_and(cut_the_list_of_arrays): "ema cannot be read (the list of its arrays is damaged)",
    lose_checksums_and(lambda folder: (folder / "meta" / "metadata").write_text("{")): "meta cannot be read (",
    lose_checksums_and(lambda folder: (folder / "meta" / "metadata").write_text("{}")): "meta has no config",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_named_and_the_one_before_taken(tmp_path, capsys, damage):
    run = open_run(tmp_path)
    states = {step: make_state(step, shift=float(step)) for step in (1, 2)}
    for state in states.values():
        run.save(state, meta=META)
    run.close()
    damage(tmp_path / "checkpoints" / "2")

    assert_same(checkpoint.restore_for_inference(tmp_path)[1], states[1].ema)
    text = capsys.readouterr().err
    assert "checkpoints/2 is damaged" in text and DAMAGES[damage] in text and "Traceback" not in text

    run = open_run(tmp_path)
    shardings = state_sharding(make_mesh(devices=jax.devices()[:1]), states[1])
    assert_same(run.restore(jax.eval_shape(lambda: states[1]), shardings), states[1])
    assert "checkpoint 2 is damaged" in capsys.readouterr().err
    run.save(states[2], meta=META)  # its step is free again
    run.close()
    assert steps_of(tmp_path) == [1, 2]
    assert len(list((tmp_path / saving.ASIDE).iterdir())) == 1


def test_no_sound_one_is_one_line(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)
    run.close()
    flip(tmp_path / "checkpoints" / "1")
    with pytest.raises(UserError, match="holds no sound checkpoint; restore one"):
        checkpoint.find_step(tmp_path)
    with pytest.raises(UserError, match="checkpoints/1 is damaged"):
        checkpoint.find_step(tmp_path / "checkpoints" / "1")
    run = open_run(tmp_path)
    with pytest.raises(UserError, match="holds no sound checkpoint .1: ema/.* other bytes"):
        run.restore(make_state(1), make_state(1))


def test_another_optimiser_is_named(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)
    variables = micro_variables()
    other = create_state(variables, make_optimizer({**OPTIM, "name": "sgd"}, variables["params"]))
    with pytest.raises(UserError, match="arrays of its optimiser, this one has .* optim.name it was trained with"):
        run.restore(other, other)


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)
    run.save(make_state(1, shift=1.0), meta=META)
    run.close()
    _, variables = checkpoint.restore_for_inference(tmp_path, "raw")
    assert_same(variables, micro_variables())


def test_inference_reads_the_average_and_its_config_from_any_path(tmp_path):
    state = make_state(12)
    run = open_run(tmp_path)
    run.save(state, meta=META)
    run.close()
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "12"):
        found, variables = checkpoint.restore_for_inference(path)
        assert found == CONFIG
        assert_same(variables, state.ema)
    assert_same(checkpoint.restore_for_inference(tmp_path, "raw")[1], state.variables)


def test_converted_weights_look_like_a_run(tmp_path):
    variables = micro_variables()
    checkpoint.save_converted(tmp_path / "out", CONFIG, jax.tree.map(np.asarray, variables))
    for which in ("ema", "raw"):
        found, restored = checkpoint.restore_for_inference(tmp_path / "out", which)
        assert found == CONFIG
        assert_same(restored, variables)
    with pytest.raises(UserError, match="exists; choose a new output folder"):
        checkpoint.save_converted(tmp_path / "out", CONFIG, variables)


def test_half_written_steps_are_not_seen(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(3), meta=META)
    run.close()
    leftover = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp"
    leftover.mkdir()
    assert checkpoint.find_step(tmp_path).name == "3"
    assert open_run(tmp_path).latest_step() == 3


def test_another_architecture_is_listed(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)
    other = make_state(1)
    params = other.variables["params"]
    params["neck"] = params.pop("backbone")
    params["head"]["kernel"] = jnp.zeros((8, 5))
    with pytest.raises(UserError) as error:
        run.restore(other, other)
    text = str(error.value)
    assert "another architecture" in text and "\n" not in text
    assert "1 missing (params/neck/kernel)" in text
    assert "1 not in the model (params/backbone/kernel)" in text
    assert "params/head/kernel (8, 4) instead of (8, 5)" in text


def test_paths_without_checkpoint_say_what_to_give(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint; give a workdir"):
        checkpoint.find_step(tmp_path)
    file = tmp_path / "model.pth"
    file.write_text("x")
    with pytest.raises(UserError, match="model.pth is a file.*vps-jax convert"):
        checkpoint.find_step(file)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*file/run.*choose another folder"):
        checkpoint.check_writable(tmp_path / "file" / "run")
    checkpoint.check_writable(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_full_disk_is_met_before_training(tmp_path, monkeypatch):
    state = jax.eval_shape(make_state)
    checkpoint.check_disk_space(tmp_path, state, 2)
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="0.0 MB free, 4 checkpoints need"):
        checkpoint.check_disk_space(tmp_path, state, 2)
    # those of an earlier start are part of what the run needs
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "file").write_bytes(bytes(4 * bytes_of(state)))
    checkpoint.check_disk_space(tmp_path, state, 2)
    # those of other runs are not: they stay
    with pytest.raises(UserError, match="4 checkpoints need"):
        checkpoint.check_disk_space(tmp_path, state, 2, [tmp_path / "checkpoints"])


def test_meta_is_json(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)
    run.close()
    found = checkpoint.read_meta(checkpoint.find_step(tmp_path))
    assert json.loads(json.dumps(found)) == {"step": 1, "run": "me", **META}


def test_classes_are_those_of_the_meta_or_of_the_configs_name(tmp_path):
    rows = [{"id": 7, "name": "barge", "isthing": 1, "color": [1, 2, 3]}]
    run = open_run(tmp_path / "new")
    run.save(make_state(1), meta={**META, "classes": rows})
    run.close()
    assert checkpoint.read_classes(tmp_path / "new").rows() == rows
    checkpoint.save_converted(tmp_path / "old", CONFIG, micro_variables())
    assert checkpoint.read_classes(tmp_path / "old") == class_table("vipseg")
