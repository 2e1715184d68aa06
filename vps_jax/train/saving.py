"""The checkpoints of one run: when they are written, which of them stay, and which one a resumed run starts from."""

import functools
import json
import logging
import os
import pathlib
import shutil
import sys
import threading
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vps_jax.files import write_json
from vps_jax.train import integrity
from vps_jax.train.checkpoint import (
    FOLDER,
    ITEMS,
    SCORE,
    check_same_tree,
    check_writable,
    damage_of,
    first_line,
    handlers,
    read_meta,
)
from vps_jax.train.state import TrainState, flat_paths
from vps_jax.types import UserError

ASIDE = "damaged_checkpoints"  # in the workdir: where damaged ones are moved


class Checkpoints:
    """The checkpoints of one run.

    The newest stay and the one with the best score; every other one that this run wrote is deleted. Those that are
    there without this run's mark, from another run or an earlier version, are left alone.

    Args:
      workdir: the run's folder.
      keep: how many of the newest stay.
      owner: mark of the run in `meta`; empty for one who reads, beside a run that may be writing.
    """

    def __init__(self, workdir, *, keep: int, owner: str = ""):
        options = ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=bool(owner),
            # on a CPU host copies alias device buffers, which the next step's donation reuses
            enable_async_checkpointing=jax.default_backend() != "cpu",
        )
        self.folder = pathlib.Path(workdir).absolute() / FOLDER
        if owner:
            check_writable(self.folder)
        self._manager = ocp.CheckpointManager(self.folder, item_handlers=handlers(ITEMS), options=options)
        self._keep, self._owner = keep, owner
        self._own = {step for step in self._manager.all_steps() if owner_of(self.folder / str(step)) == owner}
        self._scores = {step: score for step in self._own if (score := read_score(self.folder / str(step))) is not None}
        self._unsealed: set[int] = set()
        hush_threads()

    def steps(self) -> list[int]:
        """Steps that are there, ascending."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The newest step."""
        return max(self.steps(), default=None)

    def save(self, state: TrainState, *, meta: dict) -> None:
        """Save a state under its step, unless it is there. `meta` must be json.

        Raises:
          UserError: it cannot be written.
        """
        step = int(state.step)
        self._finish()
        if step in self._manager.all_steps():
            return
        trees = {"variables": state.variables, "ema": state.ema, "optimizer": state.opt_state}
        if in_host_memory():
            trees = jax.tree.map(np.asarray, trees)
        args = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        args["meta"] = ocp.args.JsonSave({"step": step, "run": self._owner, **meta})
        try:
            if not self._manager.save(step, args=ocp.args.Composite(**args), force=True):
                raise RuntimeError(f"checkpoint {step} was not written")  # orbax refuses silently
        except (OSError, ValueError) as error:
            self._explain(step, error)
        self._own.add(step)
        self._unsealed.add(step)
        if jax.default_backend() == "cpu":
            self._finish()

    def score(self, step: int, score: float) -> None:
        """Add the score of a saved step, larger is better; the best one stays."""
        self._finish()
        self._scores[step] = score
        if jax.process_index() == 0:
            write_json(self.folder / str(step) / SCORE, score)
        self._prune()

    def newest_before(self, step: int) -> int | None:
        """The newest checkpoint of fewer steps."""
        return max((known for known in self.steps() if known < step), default=None)

    def kept(self) -> set[int]:
        """Steps of this run that stay."""
        best = max(self._scores, key=lambda step: (self._scores[step], step), default=None)
        return {*sorted(self._own)[-self._keep :], *([] if best is None else [best])}

    def of_others(self) -> list[pathlib.Path]:
        """Folders of the checkpoints that are left alone."""
        return [self.folder / str(step) for step in self.steps() if step not in self._own]

    def restore(self, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The newest sound state, laid out by `shardings`, whatever number of devices wrote it.

        Damaged ones are named on stderr and moved out of the way.

        Args:
          abstract: shapes of the state.
          shardings: where it shall lie.

        Raises:
          UserError: none is sound, or its parameters are not those of `abstract`.
        """
        return self.restore_step(self._sound_step(), abstract, shardings)

    def restore_step(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The state of one step.

        Raises:
          UserError: its parameters or its optimiser are not those of `abstract`.
        """
        stored = self._manager.item_metadata(step)
        check_same_tree(stored["variables"].tree, abstract.variables, self.folder / str(step))
        check_same_optimizer(stored["optimizer"].tree, abstract.opt_state, self.folder / str(step))
        target = jax.tree.map(as_target, abstract, shardings)
        trees = {"variables": target.variables, "ema": target.ema, "optimizer": target.opt_state}
        args = {name: ocp.args.StandardRestore(tree) for name, tree in trees.items()}
        items = self._manager.restore(step, args=ocp.args.Composite(**args))
        state = TrainState(np.int32(step), items["variables"], items["ema"], items["optimizer"])
        return jax.device_put(state, shardings)

    def meta(self) -> dict:
        """Json of the newest checkpoint."""
        return read_meta(self.folder / str(self.latest_step()))

    def close(self) -> None:
        """Wait for writes under way."""
        self._finish()
        self._manager.wait_until_finished()
        self._manager.close()

    def _finish(self) -> None:
        """Wait for what is being written, write its checksums, and only then delete what it takes the place of.

        Raises:
          UserError: it could not be written.
        """
        if not self._unsealed:
            return
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            step = max(self._unsealed)
            self._own -= self._unsealed
            self._unsealed.clear()
            self._explain(step, error)
        if jax.process_index() == 0:
            for step in self._unsealed & set(self._manager.all_steps()):
                integrity.seal(self.folder / str(step))
        self._unsealed.clear()
        self._prune()

    def _prune(self) -> None:
        for step in sorted(self._own - self.kept()):
            self._manager.delete(step)
            self._own.discard(step)
            self._scores.pop(step, None)

    def _sound_step(self) -> int:
        """The newest step that is whole; newer ones are named and moved aside."""
        damaged = {}
        for step in reversed(self.steps()):
            wrong = agreed(damage_of(self.folder / str(step), ITEMS))
            if wrong is None:
                break
            damaged[step] = wrong
        else:
            lines = "; ".join(f"{step}: {wrong}" for step, wrong in damaged.items())
            raise UserError(f"{self.folder} holds no sound checkpoint ({lines}); restore one, or use another --workdir")
        for number, wrong in damaged.items():
            self._own.discard(number)
            self._scores.pop(number, None)
            if jax.process_index() == 0:
                aside = self.folder.parent / ASIDE
                aside.mkdir(exist_ok=True)
                os.replace(self.folder / str(number), aside / f"{number}.{time.time_ns()}")
                line = f"checkpoint {number} is damaged ({wrong}), moved to {ASIDE}; going on from {step}"
                print(f"warning: {line}", file=sys.stderr)
        if damaged:
            self._manager.reload()
        return step

    def _explain(self, step: int, error: Exception) -> None:
        left = shutil.disk_usage(self.folder).free if self.folder.is_dir() else None
        state = "its folder is gone" if left is None else f"{left / 1e9:.2f} GB are free"
        raise UserError(
            f"checkpoint {step} cannot be written to {self.folder} ({state}: {first_line(error)}); the last one is "
            f"{max(self._own, default='none')}: make room and start again"
        ) from error


@functools.cache
def hush_threads() -> None:
    """Let the threads that write print no errors: what goes wrong there is raised in the main thread as well.

    On a full disk that would be hundreds of lines, which hide the one that says so. Some come after that one, from the
    writes of a checkpoint that end, or are never awaited, when the first of them has failed.
    """
    hook, thread_hook, deletion_hook = sys.excepthook, threading.excepthook, sys.unraisablehook

    def is_told(record) -> bool:
        message = record.getMessage()
        return "_SignalingThread.run() raised an exception" not in message and "exception was never" not in message

    def other_errors(kind, error, trace) -> None:
        if str(error) != "Event loop is closed":
            hook(kind, error, trace)

    def of_other_threads(error) -> None:
        if not type(error.thread).__module__.startswith("tensorboard."):  # raises it again at the next event
            thread_hook(error)

    def of_deletions(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            deletion_hook(unraisable)

    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(is_told)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.excepthook, threading.excepthook, sys.unraisablehook = other_errors, of_other_threads, of_deletions


def in_host_memory() -> bool:
    """Whether one process holds all arrays in its own memory: orbax takes half the time for those of numpy there."""
    return jax.default_backend() == "cpu" and jax.process_count() == 1


def as_target(leaf, sharding):
    """What orbax is to read a saved array into: memory of the host, or where it shall lie."""
    if in_host_memory():
        return np.empty(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def agreed(word: str | None) -> str | None:
    """What process 0 found, on every process."""
    if jax.process_count() == 1:
        return word
    encoded = np.zeros(256, np.uint8)
    data = (word or "").encode()[:256]
    encoded[: len(data)] = list(data)
    message = bytes(multihost_utils.broadcast_one_to_all(encoded)).rstrip(b"\0").decode(errors="replace")
    return message or None


def owner_of(step_folder: pathlib.Path) -> str | None:
    """Mark of the run that wrote a checkpoint; None where it cannot be read."""
    try:
        return read_meta(step_folder).get("run")
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def read_score(step_folder: pathlib.Path) -> float | None:
    """The score of a checkpoint, None for one that has none."""
    file = step_folder / SCORE
    try:
        return float(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def check_same_optimizer(restored, expected, where) -> None:
    """Raise UserError if a checkpoint holds the moments of another optimiser."""
    restored = {path: tuple(leaf.shape) for path, leaf in flat_paths(restored).items() if hasattr(leaf, "shape")}
    expected = {path: tuple(leaf.shape) for path, leaf in flat_paths(expected).items()}
    if len(restored) != len(expected):
        raise UserError(
            f"checkpoint {where} holds {len(restored)} arrays of its optimiser, this one has {len(expected)}; use the "
            "optim.name it was trained with, or another --workdir"
        )
