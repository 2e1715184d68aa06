"""Checkpoints: what a run saves, how it resumes, and how weights leave for inference.

Layout: `WORKDIR/checkpoints/<step>/{variables, ema, optimizer, meta}`, separate items, so that inference reads the
average alone. `meta` is json: step, resolved config and whatever the run adds (seed, fingerprint of the data). A
checkpoint therefore needs no config file to be used. Directories are renamed into place when complete, so a killed
run leaves only whole ones. Converted weights have the same layout with `variables` alone, under step 0.
"""

import functools
import os
import pathlib
import sys
from collections.abc import Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp

from vps_jax.config import Experiment, experiment
from vps_jax.datasets import ClassTable, class_table, from_rows
from vps_jax.files import require_space
from vps_jax.parsing import plain
from vps_jax.train import integrity
from vps_jax.train.state import TrainState, bytes_of, flat_paths
from vps_jax.types import UserError

FOLDER = "checkpoints"
ITEMS = ("variables", "ema", "optimizer", "meta")
SCORE = "score.json"  # in a step's folder: what the best one is chosen by
SHOWN = 4  # paths named in an error line


def handlers(names) -> dict:
    """The orbax handler of each item, so that metadata can be read before anything is restored."""
    return {name: ocp.JsonCheckpointHandler() if name == "meta" else ocp.StandardCheckpointHandler() for name in names}


def check_same_tree(restored, expected, where) -> None:
    """Raise UserError with the paths in which two parameter trees differ."""
    restored = {path: tuple(leaf.shape) for path, leaf in flat_paths(restored).items()}
    expected = {path: tuple(leaf.shape) for path, leaf in flat_paths(expected).items()}
    differences = {
        "missing": sorted(expected.keys() - restored.keys()),
        "not in the model": sorted(restored.keys() - expected.keys()),
        "of another shape": [
            f"{path} {restored[path]} instead of {expected[path]}"
            for path in sorted(restored.keys() & expected.keys())
            if restored[path] != expected[path]
        ],
    }
    lines = [f"{len(paths)} {kind} ({', '.join(paths[:SHOWN])})" for kind, paths in differences.items() if paths]
    if lines:
        raise UserError(
            f"checkpoint {where} holds another architecture: {'; '.join(lines)}; "
            "use the config.model it was trained with, or another --workdir"
        )


def find_step(path) -> pathlib.Path:
    """The checkpoint folder that a user means: a workdir, its `checkpoints`, or one step in it.

    Of several steps the newest counts whose weights are whole; a damaged one is named on stderr.

    Raises:
      UserError: nothing of that kind is there, or it is damaged.
    """
    path = pathlib.Path(path).absolute()
    if path.is_file():
        raise UserError(f"{path} is a file, expected a run's folder; turn published weights into one: vps-jax convert")
    if (path / "meta").is_dir() or (path.name.isdigit() and path.parent.name == FOLDER and path.is_dir()):
        if wrong := damage(path):
            raise UserError(f"checkpoint {path} is damaged ({wrong}); give another one")
        return path
    for folder in (path / FOLDER, path):
        steps = sorted((int(p.name) for p in folder.glob("*") if p.name.isdigit() and p.is_dir()), reverse=True)
        for step in steps:
            if not (wrong := damage(folder / str(step))):
                return folder / str(step)
            print(f"warning: checkpoint {folder / str(step)} is damaged ({wrong}), left out", file=sys.stderr)
        if steps:
            raise UserError(f"{folder} holds no sound checkpoint; restore one, or give another folder")
    raise UserError(f"{path} holds no checkpoint; give a workdir of main.py or the output folder of `vps-jax convert`")


def newest_step(workdir) -> int | None:
    """The newest step that a run has saved, sound or not; None for none."""
    names = [path.name for path in (pathlib.Path(workdir) / FOLDER).glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=None)


def damage(folder: pathlib.Path) -> str | None:
    """What is wrong with the weights of a checkpoint, None for nothing; files that did not change are read once."""
    items = tuple(name for name in ITEMS if name in ("variables", "meta") or (name == "ema" and is_of_training(folder)))
    times = tuple(path.stat().st_mtime_ns for path in sorted(folder.rglob("*")))
    return _damage(folder, items, times)


@functools.lru_cache(maxsize=16)
def _damage(folder: pathlib.Path, items: tuple[str, ...], times: tuple[int, ...]) -> str | None:
    return damage_of(folder, items)


def damage_of(folder: pathlib.Path, items: tuple[str, ...]) -> str | None:
    """As `integrity.damage`; one that a kill left without checksums is read in their place."""
    wrong = integrity.damage(folder, items)
    return unreadable(folder, items) if wrong is None and not integrity.is_sealed(folder) else wrong


def unreadable(folder: pathlib.Path, items: tuple[str, ...]) -> str | None:
    """Which item of a checkpoint cannot be read, and why, in words; None if all can be."""
    for item in items:
        try:
            if item != "meta":
                read_tree(folder / item)
            elif not isinstance(read_meta(folder).get("config"), dict):
                return "meta has no config"
        except Exception as error:  # orbax and its readers raise whatever they meet
            return f"{item} cannot be read ({first_line(error)})"
    return None


def first_line(error: Exception) -> str:
    """The first line of an exception's message, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def is_of_training(folder: pathlib.Path) -> bool:
    """Whether a checkpoint was written by a run; converted weights have neither optimizer nor EMA weights."""
    return (folder / "optimizer").is_dir() or (folder / "ema").is_dir()


def read_meta(step_folder) -> dict:
    """Json of one checkpoint."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return reader.restore(pathlib.Path(step_folder) / "meta", args=ocp.args.JsonRestore())


def read_experiment(step_folder) -> Experiment:
    """The config of one checkpoint, of whatever version.

    Raises:
      UserError: it cannot be read by this program.
    """
    try:
        return experiment(read_meta(step_folder)["config"])
    except UserError as error:
        raise UserError(f"checkpoint {step_folder}: config.{error}") from None


def read_classes(path) -> ClassTable:
    """The classes of a checkpoint's scores: those of the data that it was trained on.

    Args:
      path: see `find_step`.

    Raises:
      UserError: no checkpoint there.
    """
    return classes_of_step(find_step(path))


def classes_of_step(step_folder) -> ClassTable:
    """As `read_classes`, of one step's folder that `find_step` gave."""
    rows = read_meta(step_folder).get("classes")
    return from_rows(rows) if rows else class_table(read_experiment(step_folder).infer.taxonomy)


def restore_for_inference(path, which: str = "ema") -> tuple[Experiment, dict]:
    """Config and weights of a checkpoint, without optimizer and without any file of `configs/`.

    Args:
      path: see `find_step`.
      which: `ema` or `raw`. Converted weights have one set, which is given for both.

    Returns:
      (its experiment, variables on the first local device).

    Raises:
      UserError: no checkpoint there, or its config cannot be read.
    """
    folder = find_step(path)
    return read_experiment(folder), read_tree(weights_item(folder, which))


def shapes_for_inference(path, which: str = "ema") -> tuple[Experiment, dict]:
    """As `restore_for_inference`, with shapes in place of numbers."""
    folder = find_step(path)
    return read_experiment(folder), tree_shapes(weights_item(folder, which))


def weights_item(folder: pathlib.Path, which: str) -> pathlib.Path:
    """The item of a checkpoint that holds the average or the raw weights."""
    return folder / "ema" if which == "ema" and (folder / "ema").is_dir() else folder / "variables"


def tree_shapes(item: pathlib.Path):
    """Shapes and dtypes of a saved tree."""
    with ocp.StandardCheckpointer() as reader:
        saved = reader.metadata(item).item_metadata
    if saved is None:
        raise ValueError("the list of its arrays is damaged")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved.tree)


def read_tree(item: pathlib.Path):
    """A saved tree on the first local device, whatever devices wrote it."""
    in_memory = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree_shapes(item))
    with ocp.StandardCheckpointer() as reader:  # faster than orbax laying each array on the device
        return jax.device_put(reader.restore(item, in_memory), jax.local_devices()[0])


def save_converted(path, config: Experiment | Mapping, variables) -> None:
    """Write weights that were not trained here (converted from a published file) so that every command takes them.

    Args:
      path: new folder, which becomes a workdir.
      config: experiment of the weights' model.
      variables: `{'params': ...}`.

    Raises:
      UserError: the folder holds checkpoints already, or cannot be written.
    """
    folder = pathlib.Path(path).absolute() / FOLDER
    if folder.exists():
        raise UserError(f"{folder} exists; choose a new output folder")
    check_writable(path)
    names = ("variables", "meta")
    with ocp.CheckpointManager(folder, item_handlers=handlers(names)) as manager:
        items = {"variables": ocp.args.StandardSave(jax.tree.map(np.asarray, variables))}
        items["meta"] = ocp.args.JsonSave({"step": 0, "config": plain(experiment(config))})
        manager.save(0, args=ocp.args.Composite(**items))
        manager.wait_until_finished()
    integrity.seal(folder / "0")


def check_writable(folder) -> None:
    """Make a folder and prove that a file can be written in it; UserError otherwise."""
    folder = pathlib.Path(folder)
    probe = folder / f".probe{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another folder") from None


def most_checkpoints(keep: int) -> int:
    """How many checkpoints a run holds at most: the newest, the best, one being written."""
    return keep + 2


def check_disk_space(workdir, abstract: TrainState, keep: int, others=()) -> None:
    """Raise UserError unless the checkpoints of a whole run fit on the disk.

    What is there already counts, since it goes when others come; but for the folders `others`, which stay.
    """
    needed = bytes_of(abstract) * most_checkpoints(keep)
    there = integrity.bytes_on_disk(pathlib.Path(workdir) / FOLDER) - sum(map(integrity.bytes_on_disk, others))
    require_space(pathlib.Path(workdir), needed - there, f"{most_checkpoints(keep)} checkpoints")
