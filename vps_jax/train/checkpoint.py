"""Checkpoints: what a run saves, how it resumes, and how weights leave for inference.

Layout: `WORKDIR/checkpoints/<step>/{variables, ema, optimizer, meta}`, separate items, so that inference reads the
average alone. `meta` is json: step, resolved config and whatever the run adds (seed, fingerprint of the data). A
checkpoint therefore needs no config file to be used. Directories are renamed into place when complete, so a killed
run leaves only whole ones. Converted weights have the same layout with `variables` alone, under step 0.
"""

import os
import pathlib
from collections.abc import Mapping

import jax
import orbax.checkpoint as ocp

from vps_jax.config import Experiment, experiment
from vps_jax.datasets import ClassTable, class_table, from_rows
from vps_jax.files import require_space
from vps_jax.parsing import plain
from vps_jax.train.state import TrainState, bytes_of, flat_paths
from vps_jax.types import UserError

FOLDER = "checkpoints"
ITEMS = ("variables", "ema", "optimizer", "meta")
SHOWN = 4  # paths named in an error line


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: the run's folder.
      keep: how many of the newest stay; the one with the best `metric` stays as well.
      metric: key of the numbers given to `save`, larger is better.
    """

    def __init__(self, workdir, *, keep: int, metric: str):
        def best(metrics):
            return metrics[metric]

        policies = ocp.checkpoint_managers
        policy = policies.AnyPreservationPolicy(
            [policies.LatestN(keep), policies.BestN(get_metric_fn=best, n=1)]
        )  # not max_to_keep with best_fn: that deletes the newest (spec: stack 7)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=best,
            cleanup_tmp_directories=True,
            # on a CPU host copies alias device buffers, which the next step's donation reuses
            enable_async_checkpointing=jax.default_backend() != "cpu",
        )
        self.folder = pathlib.Path(workdir).absolute() / FOLDER
        self._manager = ocp.CheckpointManager(self.folder, item_handlers=handlers(ITEMS), options=options)
        self._metric = metric

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, *, meta: dict, metrics: dict | None = None) -> None:
        """Save a state under its step. `meta` must be json; `metrics` counts only if it holds the metric."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            variables=ocp.args.StandardSave(state.variables),
            ema=ocp.args.StandardSave(state.ema),
            optimizer=ocp.args.StandardSave(state.opt_state),
            meta=ocp.args.JsonSave({"step": step, **meta}),
        )
        known = metrics if metrics and self._metric in metrics else None
        if not self._manager.save(step, args=args, metrics=known, force=True):
            raise RuntimeError(f"checkpoint {step} was not written")  # orbax refuses silently

    def restore(self, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The newest state, laid out by `shardings`, whatever number of devices wrote it.

        Raises:
          UserError: the checkpoint's parameters are not those of `abstract`.
        """
        step = self.latest_step()
        found = self._manager.item_metadata(step)["variables"].tree
        check_same_tree(found, abstract.variables, self.folder / str(step))
        target = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, shardings
        )
        args = {
            "variables": ocp.args.StandardRestore(target.variables),
            "ema": ocp.args.StandardRestore(target.ema),
            "optimizer": ocp.args.StandardRestore(target.opt_state),
        }
        items = self._manager.restore(step, args=ocp.args.Composite(**args))
        count = jax.device_put(jax.numpy.asarray(step, jax.numpy.int32), shardings.step)
        return TrainState(count, items["variables"], items["ema"], items["optimizer"])

    def meta(self) -> dict:
        """Json of the newest checkpoint."""
        return read_meta(self.folder / str(self.latest_step()))

    def close(self) -> None:
        """Wait for writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def handlers(names) -> dict:
    """The orbax handler of each item, so that metadata can be read before anything is restored."""
    return {name: ocp.JsonCheckpointHandler() if name == "meta" else ocp.StandardCheckpointHandler() for name in names}


def check_same_tree(found, expected, where) -> None:
    """Raise UserError with the paths in which two parameter trees differ."""
    found = {path: tuple(leaf.shape) for path, leaf in flat_paths(found).items()}
    expected = {path: tuple(leaf.shape) for path, leaf in flat_paths(expected).items()}
    differences = {
        "missing": sorted(expected.keys() - found.keys()),
        "not in the model": sorted(found.keys() - expected.keys()),
        "of another shape": [
            f"{path} {found[path]} instead of {expected[path]}"
            for path in sorted(found.keys() & expected.keys())
            if found[path] != expected[path]
        ],
    }
    lines = [f"{len(paths)} {kind} ({', '.join(paths[:SHOWN])})" for kind, paths in differences.items() if paths]
    if lines:
        raise UserError(
            f"checkpoint {where} holds another architecture: {'; '.join(lines)}; "
            "use the config.model it was trained with, or another --workdir"
        )


def find_step(path) -> pathlib.Path:
    """The checkpoint folder that a user means: a workdir, its `checkpoints`, or one step in it; the newest step counts.

    Raises:
      UserError: nothing of that kind is there.
    """
    path = pathlib.Path(path).absolute()
    if path.is_file():
        raise UserError(f"{path} is a file, expected a run's folder; turn published weights into one: vps-jax convert")
    if (path / "meta").is_dir():
        return path
    for folder in (path / FOLDER, path):
        steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit() and (p / "meta").is_dir()]
        if steps:
            return folder / str(max(steps))
    raise UserError(f"{path} holds no checkpoint; give a workdir of main.py or the output folder of `vps-jax convert`")


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
    folder = find_step(path)
    rows = read_meta(folder).get("classes")
    return from_rows(rows) if rows else class_table(read_experiment(folder).infer.taxonomy)


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
    """Shapes of a saved tree, to be laid on the first local device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as reader:
        saved = reader.metadata(item).item_metadata.tree
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved)


def read_tree(item: pathlib.Path):
    """A saved tree on the first local device, whatever devices wrote it."""
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(item, tree_shapes(item))


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
        items = {"variables": ocp.args.StandardSave(jax.tree.map(jax.numpy.asarray, variables))}
        items["meta"] = ocp.args.JsonSave({"step": 0, "config": plain(experiment(config))})
        manager.save(0, args=ocp.args.Composite(**items))
        manager.wait_until_finished()


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


def check_disk_space(workdir, abstract: TrainState, keep: int) -> None:
    """Raise UserError unless the checkpoints of a whole run fit on the disk (newest, best, and one being written)."""
    needed = bytes_of(abstract) * (keep + 2)
    require_space(pathlib.Path(workdir), needed, f"{keep + 2} checkpoints")
