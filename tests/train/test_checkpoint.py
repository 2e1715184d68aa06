"""Saving, resuming on other devices, reading for inference, and what the user is told when it does not fit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro_experiment import OPTIM, micro_variables

from vps_jax import config
from vps_jax.datasets import class_table
from vps_jax.parsing import plain
from vps_jax.train import checkpoint
from vps_jax.train.optimizer import make_optimizer
from vps_jax.train.sharding import make_mesh, state_sharding
from vps_jax.train.state import create_state
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


def open_run(folder, keep=2):
    return checkpoint.Checkpoints(folder, keep=keep, metric="vpq")


def test_a_state_comes_back_on_another_number_of_devices(tmp_path, monkeypatch):
    monkeypatch.setattr("vps_jax.train.sharding.MIN_SHARDED_SIZE", 1)
    state = make_state(step=7)
    shardings = state_sharding(make_mesh(4), state)
    run = open_run(tmp_path)
    run.save(jax.device_put(state, shardings), meta=META)
    run.close()
    two = state_sharding(make_mesh(2, devices=jax.devices()[:2]), state)
    run = open_run(tmp_path)
    restored = run.restore(jax.eval_shape(lambda: state), two)
    assert_same(restored, state)
    assert restored.variables["params"]["head"]["kernel"].sharding == two.variables["params"]["head"]["kernel"]
    assert run.meta() == {"step": 7, **META}
    run.close()


def test_newest_and_best_are_kept(tmp_path):
    run = open_run(tmp_path, keep=1)
    for step, vpq in [(1, 0.3), (2, 0.9), (3, 0.1), (4, None)]:
        run.save(make_state(step), meta=META, metrics=None if vpq is None else {"vpq": vpq})
    run.close()
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert kept == [2, 4]


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
    with pytest.raises(UserError, match="0.0 GB free, 4 checkpoints need"):
        checkpoint.check_disk_space(tmp_path, state, 2)


def test_meta_is_json(tmp_path):
    run = open_run(tmp_path)
    run.save(make_state(1), meta=META)
    run.close()
    assert json.loads(json.dumps(checkpoint.read_meta(checkpoint.find_step(tmp_path)))) == {"step": 1, **META}


def test_classes_are_those_of_the_meta_or_of_the_configs_name(tmp_path):
    rows = [{"id": 7, "name": "barge", "isthing": 1, "color": [1, 2, 3]}]
    run = open_run(tmp_path / "new")
    run.save(make_state(1), meta={**META, "classes": rows})
    run.close()
    assert checkpoint.read_classes(tmp_path / "new").rows() == rows
    checkpoint.save_converted(tmp_path / "old", CONFIG, micro_variables())
    assert checkpoint.read_classes(tmp_path / "old") == class_table("vipseg")
