"""The training loop: checks, resume, steps, evaluation, checkpoints.

Everything that can be wrong in a config, the data, the devices or the disk is found before anything compiles. Batch k
and the randomness of step k depend on k alone, so a run that was killed and started again ends in the same bits.
"""

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vps_jax.config import Experiment
from vps_jax.config import experiment as read_config
from vps_jax.data import pipeline
from vps_jax.files import write_json
from vps_jax.parsing import plain
from vps_jax.train import handover
from vps_jax.train.checkpoint import Checkpoints
from vps_jax.train.optimizer import make_schedule
from vps_jax.train.programs import StepPrograms
from vps_jax.train.report import CompileCounter, Report
from vps_jax.train.setup import Setup, prepare, start_state
from vps_jax.train.sharding import replicated
from vps_jax.train.state import TrainState, count_parameters
from vps_jax.types import UserError

EVERY = ("log", "checkpoint", "evaluate")  # after so many steps and after the last
MIRRORED = {"data.seed", "data.batch_size"}  # follow those of `train`
Evaluate = Callable[[Any, int, str], tuple[dict[str, float], dict[str, np.ndarray]]]


def train(experiment: Experiment, workdir, *, evaluate: Evaluate | None = None) -> list[dict]:
    """Train until `config.train.steps`, resuming from the newest checkpoint in `workdir`.

    Args:
      experiment: the config.
      workdir: folder for config.json, events, checkpoints and metrics.json; made if missing.
      evaluate: `(variables, step, label) -> (numbers, images)`, called on process 0 with label `raw` and `ema`. The
        number `config.train.best_metric` of the average picks the best checkpoint.

    Returns:
      Rows of metrics.json, one per evaluation.

    Raises:
      UserError: config, data, devices or disk do not fit, or the loss is not finite.
    """
    settings = experiment.train
    setup = prepare(experiment, workdir)
    checkpoints = Checkpoints(setup.workdir, keep=settings.keep_checkpoints, metric=settings.best_metric)
    schedule = make_schedule(experiment.optim)
    with CompileCounter() as compiled, contextlib.closing(checkpoints), stop_signal() as stopping:
        state = start_state(setup, checkpoints)
        report = Report(setup.workdir, total=settings.steps, done=int(state.step), schedule=schedule)
        with contextlib.closing(report):
            introduce(setup, state, report)
            if int(state.step):
                tell_changes(setup, checkpoints.meta(), report)
            run_steps(setup, state, checkpoints=checkpoints, report=report, evaluate=evaluate, stopping=stopping)
            report.progress.say(f"{compiled.count} XLA compilations in all")
    return report.history


def evaluate_newest(experiment: Experiment, workdir, *, evaluate: Evaluate) -> list[dict]:
    """Evaluate the newest checkpoint in `workdir`, raw and averaged, and add it to metrics.json.

    Raises:
      UserError: no checkpoint, or not of this config's architecture.
    """
    setup = prepare(experiment, workdir)
    settings = experiment.train
    checkpoints = Checkpoints(setup.workdir, keep=settings.keep_checkpoints, metric=settings.best_metric)
    with contextlib.closing(checkpoints):
        if checkpoints.latest_step() is None:
            raise UserError(f"{workdir} holds no checkpoint to evaluate; train there first, or give another --workdir")
        state = start_state(setup, checkpoints)
    done = int(state.step)
    report = Report(setup.workdir, total=settings.steps, done=done, schedule=make_schedule(experiment.optim))
    with contextlib.closing(report):
        run_evaluation(setup, state, evaluate, report)
    return report.history


def introduce(setup: Setup, state: TrainState, report: Report) -> None:
    """Write config.json and say what will run."""
    experiment = setup.experiment
    if jax.process_index() == 0:
        write_json(setup.workdir / "config.json", setup.origin["config"], indent=1)
    report.config(json.dumps(setup.origin["config"], indent=1))
    say = report.progress.say
    say(
        f"{experiment.name}: {count_parameters(state.variables) / 1e6:.2f} M parameters, {setup.mesh.size} "
        f"{jax.default_backend()} device(s), batch {experiment.train.batch_size}, workdir {setup.workdir}"
    )
    if int(state.step):
        say(f"resumed after step {int(state.step)}")
    elif setup.plan is not None:
        groups = getattr(experiment.model, "semantic_groups", ())
        say(f"from {experiment.init_from.path}: {handover.describe(setup.plan, groups)}")


def tell_changes(setup: Setup, before: Mapping, report: Report) -> None:
    """Say in what a resumed run differs from what its checkpoint was made with: it will not repeat that run."""
    old, new = (flat(plain(read_config(origin["config"]))) for origin in (before, setup.origin))
    keys = (old.keys() | new.keys()) - MIRRORED
    changed = sorted(key for key in keys if old.get(key) != new.get(key))
    if changed:
        rows = [f"{key} {old.get(key)} -> {new.get(key)}" for key in changed]
        report.progress.say(f"changed since the checkpoint: {', '.join(rows)}")
    if not pipeline.same_stream(before["data"], setup.experiment.data):
        report.progress.say("the data or their settings are not those of the checkpoint: the batches will differ")


def flat(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """Values of nested dicts by dotted key."""
    rows = {}
    for key, value in config.items():
        rows |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return rows


def run_steps(setup: Setup, state: TrainState, *, checkpoints, report, evaluate, stopping) -> TrainState:
    """Steps until the end or until a signal asks to stop."""
    settings = setup.experiment.train
    first, total = int(state.step), settings.steps
    programs = StepPrograms(setup)
    watch = Watch(setup, report)
    batches = pipeline.train_batches(
        setup.experiment.data, first_step=first, host=jax.process_index(), num_hosts=jax.process_count()
    )
    for step in range(first, total):
        batch = next(batches)
        state, scalars = programs(step, state, batch)
        watch.add(step, batch, scalars)
        report.progress.step(step + 1)
        done, last, stop = step + 1, step + 1 == total, stopping(step + 1)
        log, save, score = (last or is_due(done, getattr(settings, f"{what}_every")) for what in EVERY)
        score = score and evaluate and settings.evaluate_every and not stop
        if log or save or score or stop:
            watch.drain()  # nothing after a step that is not finite may be kept
        if log or stop:
            report.log(done)
        metrics = None
        if score:
            metrics = run_evaluation(setup, state, evaluate, report)
        if save or stop:
            checkpoints.save(state, meta=setup.origin, metrics=metrics)
        if save or metrics:
            report.restart_clock()
        if stop:
            report.progress.say(f"stopped by a signal after step {done}; the same command resumes")
            raise SystemExit(143)
    if first >= total:
        report.progress.say(f"all {total} steps were done before; train.steps asks for no more")
    else:
        report.progress.say(f"{len(programs.seen)} step program(s): {', '.join(sorted(programs.seen))}")
    return state


def is_due(done: int, every: int) -> bool:
    """Whether something that happens every so many steps, 0 for never, happens after `done` of them."""
    return bool(every) and done % every == 0


class Watch:
    """Reads the scalars of steps one step late, so that the device never waits, and stops on non-finite ones."""

    def __init__(self, setup: Setup, report: Report):
        self._setup, self._report = setup, report
        self._pending: list = []

    def add(self, step: int, batch, scalars) -> None:
        self._pending.append((step, batch.task, batch.dataset, batch.records, scalars))
        while len(self._pending) > 1:
            self._read(*self._pending.pop(0))

    def drain(self) -> None:
        """Read all steps that were started."""
        while self._pending:
            self._read(*self._pending.pop(0))

    def _read(self, step: int, task: str, dataset: str, records, scalars) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        self._report.add(task, values)
        broken = sorted(name for name, value in values.items() if not np.isfinite(value))
        if not broken:
            return
        file = self._setup.workdir / f"nonfinite_step{step}.json"
        terms = {name: value if np.isfinite(value) else str(value) for name, value in values.items()}
        row = {"step": step, "task": task, "dataset": dataset, "records": list(records), "terms": terms}
        write_json(file, row, indent=1)
        line = f"step {step}: {', '.join(broken)} not finite on {len(records)} clips of {dataset}, listed in {file}"
        if self._setup.experiment.train.on_nonfinite == "stop":
            raise UserError(f"{line}; look at them, lower optim.lr, or set train.on_nonfinite=skip, and start again")
        self._report.progress.say(f"{line}; step skipped")


def run_evaluation(setup: Setup, state: TrainState, evaluate: Evaluate, report: Report) -> dict[str, float]:
    """Evaluate raw and averaged weights on process 0; every process gets the number that picks the best checkpoint."""
    step, best = int(state.step), float("nan")
    name = setup.experiment.train.best_metric
    for label, variables in (("raw", state.variables), ("ema", state.ema)):
        local = local_copy(setup.mesh, variables)
        if jax.process_index() == 0:
            metrics, images = evaluate(local, step, label)
            report.evaluation(step, label, metrics, images)
            best = metrics.get(name, best)
    if jax.process_count() > 1:
        best = float(multihost_utils.broadcast_one_to_all(np.float64(best)))
    return {} if np.isnan(best) else {name: best}


def local_copy(mesh, tree):
    """A tree gathered onto this process's first device."""
    gathered = jax.jit(lambda t: t, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda a: a.addressable_data(0), gathered)


@contextlib.contextmanager
def stop_signal():
    """A function `steps done -> whether to save and stop now`, true once SIGTERM came.

    Schedulers send that before they take a machine away. With several processes jax agrees on a step that all of them
    reach.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda done: False
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield lambda done: event.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
