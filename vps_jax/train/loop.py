"""The training loop: checks, resume, steps, evaluation, checkpoints.

Everything that can be wrong in a config, the data, the devices or the disk is found before anything compiles. Batch k
and the randomness of step k depend on k alone, so a run that was killed and started again ends in the same bits.
"""

import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from vps_jax.config import Experiment
from vps_jax.config import experiment as read_config
from vps_jax.data import pipeline
from vps_jax.files import write_json
from vps_jax.parsing import plain
from vps_jax.train import handover, launch
from vps_jax.train.checkpoint import check_disk_space, check_writable, newest_step
from vps_jax.train.programs import StepPrograms
from vps_jax.train.recorder import Recorder
from vps_jax.train.report import CompileCounter, Report
from vps_jax.train.saving import Checkpoints
from vps_jax.train.setup import Setup, prepare, start_state
from vps_jax.train.sharding import replicated
from vps_jax.train.state import TrainState, count_parameters
from vps_jax.train.stopping import Stop, stop_signals
from vps_jax.train.workdir import check_workdir, locked, readable_errors, run_mark
from vps_jax.types import UserError

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
    workdir = pathlib.Path(workdir)
    check_writable(workdir)
    check_workdir(workdir)
    launch.check_agreement(plain(experiment), workdir)
    with readable_errors(workdir), locked(workdir):
        return train_alone(experiment, workdir, evaluate)


def train_alone(experiment: Experiment, workdir, evaluate: Evaluate | None) -> list[dict]:
    """`train` in a workdir that no other run is in."""
    setup = prepare(experiment, workdir)
    settings = experiment.train
    mark = run_mark(setup.workdir)
    checkpoints = Checkpoints(setup.workdir, keep=settings.keep_checkpoints, owner=mark)
    check_disk_space(setup.workdir, setup.abstract, settings.keep_checkpoints, checkpoints.of_others())
    with CompileCounter() as compiled, contextlib.closing(checkpoints), stop_signals() as stop:
        state = start_state(setup, checkpoints)
        report = Report(setup.workdir, experiment, done=int(state.step), compiled=compiled, run_id=mark)
        with contextlib.closing(report):
            introduce(setup, state, report)
            if int(state.step):
                tell_changes(setup, checkpoints.meta(), report)
            run = Run(setup, checkpoints, report, evaluate, stop)
            run_steps(run, state)
            report.progress.say(f"{compiled.count} XLA compilations in all")
    return report.history


def evaluate_newest(experiment: Experiment, workdir, *, evaluate: Evaluate) -> list[dict]:
    """Evaluate the newest checkpoint in `workdir`, raw and averaged, and add it to metrics.json.

    Raises:
      UserError: no checkpoint, or not of this config's architecture; or a run is in `workdir`.
    """
    workdir = pathlib.Path(workdir)
    if newest_step(workdir) is None:
        raise UserError(f"{workdir} holds no checkpoint to evaluate; train there first, or give another --workdir")
    check_writable(workdir)
    check_workdir(workdir)
    with readable_errors(workdir), locked(workdir):
        setup = prepare(experiment, workdir)
        with contextlib.closing(Checkpoints(workdir, keep=experiment.train.keep_checkpoints)) as checkpoints:
            state = start_state(setup, checkpoints)
        report = Report(workdir, experiment, done=int(state.step))
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
    used, there = setup.mesh.size, jax.device_count()
    idle = f" of {there}, one for each clip of a batch" if used < there else ""
    say(
        f"{experiment.name}: {count_parameters(state.variables) / 1e6:.2f} M parameters, {used} "
        f"{jax.default_backend()} device(s){idle}, batch {experiment.train.batch_size}, workdir {setup.workdir}"
    )
    if int(state.step):
        say(f"resumed after step {int(state.step)}")
    elif setup.plan is not None:
        for line in handover.describe(setup.plan):
            say(f"from {experiment.init_from.path}: {line}")


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


class Run(NamedTuple):
    """What the steps of a run work with."""

    setup: Setup
    checkpoints: Checkpoints
    report: Report
    evaluate: Evaluate | None
    stop: Stop


def run_steps(run: Run, state: TrainState) -> TrainState:
    """Steps until the end or until a signal asks to stop."""
    first, total = int(state.step), run.setup.experiment.train.steps
    if first and is_scored(run, first) and not run.report.evaluated(first):
        score(run, state)  # the run ended in this evaluation
    programs = StepPrograms(run.setup)
    recorder = Recorder(run.setup, run.report, run.checkpoints.newest_before)
    batches = pipeline.train_batches(
        run.setup.experiment.data, first_step=first, host=jax.process_index(), num_hosts=jax.process_count()
    )
    with pipeline.closing(batches):
        for step in range(first, total):
            with run.report.waiting(), run.stop.starting() if step == first else contextlib.nullcontext():
                batch = next(batches)
            recorder.check_records(step, batch)
            name = programs.name(step, batch)
            with contextlib.nullcontext() if name in programs.seen else run.report.compiling(name):
                state, scalars = programs(step, state, batch)
            recorder.add(step, batch, scalars)
            del batch  # shared memory of a data worker, which must be given back before a signal ends the process
            run.report.progress.step(step + 1)
            end_step(run, state, step + 1, recorder)
    if first >= total:
        run.report.progress.say(f"all {total} steps were done before; train.steps asks for no more")
    else:
        run.report.progress.say(f"{len(programs.seen)} step program(s): {', '.join(sorted(programs.seen))}")
    return state


def end_step(run: Run, state: TrainState, done: int, recorder: Recorder) -> None:
    """Log, save and evaluate where it is due; a step that is evaluated is saved first.

    Raises:
      SystemExit: a signal asked to stop.
    """
    settings, stopping = run.setup.experiment.train, run.stop.asked(done)
    last, scored = done == settings.steps, is_scored(run, done)
    log, save = (last or is_due(done, every) for every in (settings.log_every, settings.checkpoint_every))
    if log or save or scored or stopping:
        recorder.drain()  # nothing after a step that is not finite may be kept
    if log or stopping:
        run.report.log(done)
    if save or scored or stopping:
        recorder.check_state(state)
        run.checkpoints.save(state, meta=run.setup.origin)
    if stopping:
        run.report.progress.say(f"stopped by a signal after step {done}; the same command resumes")
        raise SystemExit(run.stop.exit_code)
    if scored:
        score(run, state)
    if save or scored:
        run.report.restart_clock()


def is_scored(run: Run, done: int) -> bool:
    """Whether the weights after so many steps are evaluated: when it is due, early if wanted, and at the end."""
    settings = run.setup.experiment.train
    wanted = run.evaluate is not None and settings.evaluate_every > 0
    return wanted and (done in (settings.first_evaluation, settings.steps) or is_due(done, settings.evaluate_every))


def score(run: Run, state: TrainState) -> None:
    """Evaluate a saved state and add its score to the checkpoint."""
    with run.stop.evaluation():
        best = run_evaluation(run.setup, state, run.evaluate, run.report)
    if best is not None:
        run.checkpoints.score(int(state.step), best)


def is_due(done: int, every: int) -> bool:
    """Whether something that happens every so many steps, 0 for never, happens after `done` of them."""
    return bool(every) and done % every == 0


def run_evaluation(setup: Setup, state: TrainState, evaluate: Evaluate, report: Report) -> float | None:
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
    return None if np.isnan(best) else best


def local_copy(mesh, tree):
    """A tree gathered onto this process's first device."""
    gathered = jax.jit(unchanged, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda a: a.addressable_data(0), gathered)


def unchanged(tree):
    """What is given; a function of its own name, so that every evaluation finds it compiled."""
    return tree
