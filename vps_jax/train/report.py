"""What a run says: scalars to TensorBoard, the progress line, `metrics.json`, and how often XLA compiled."""

import collections
import contextlib
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vps_jax.config import Experiment
from vps_jax.files import write_json
from vps_jax.train import wandb_writer
from vps_jax.train.optimizer import group_rates, make_schedule
from vps_jax.train.summaries import ProgressLine, make_writer
from vps_jax.train.workdir import COMPILE_SECONDS, SAMPLES
from vps_jax.types import UserError

COMPILED = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts compilations while it is open, by jax's own monitoring events."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration: float, **_) -> None:
        self.count += event == COMPILED


class Report:
    """Collects the scalars of steps and writes their means.

    Args:
      workdir: gets the event files and `metrics.json`.
      experiment: the config.
      done: steps done before this start.
      compiled: counts the compilations of this start.
      run_id: mark of the training; an evaluation of its own has none and writes to TensorBoard alone.
    """

    def __init__(
        self, workdir, experiment: Experiment, *, done: int, compiled: CompileCounter | None = None, run_id: str = ""
    ):
        self._main = jax.process_index() == 0
        self._file = pathlib.Path(workdir) / "metrics.json"
        self._seconds_file = pathlib.Path(workdir) / COMPILE_SECONDS
        self.progress = ProgressLine(experiment.train.steps, done, show=self._main)
        self._rates = group_rates(experiment.optim)
        self._rate = make_schedule(experiment.optim)
        self._clips = experiment.train.batch_size
        self._compiled = compiled
        self._waited = 0.0
        self._writers: dict[str, Any] = {}
        self._open("TensorBoard events", lambda: self._event_writer(workdir, experiment, done if run_id else None))
        if self._main and run_id and experiment.train.wandb_project:
            self._open("Weights & Biases", lambda: wandb_writer.WandbWriter(workdir, experiment, run_id))
        self._window = collections.defaultdict(list)
        self._skipped = 0
        self._broken: collections.Counter[str] = collections.Counter()
        self._last = (done, time.monotonic())
        self.history = [row for row in read_history(self._file) if row["step"] <= done]

    def _event_writer(self, workdir, experiment: Experiment, resumed: int | None):
        scores = (experiment.train.best_metric,)
        return make_writer(workdir, just_logging=not self._main, resumed=resumed, scores=scores)

    def config(self, text: str) -> None:
        self._write("write_texts", 0, {"config": f"```\n{text}\n```"})

    def add(self, task: str, scalars: dict[str, float]) -> None:
        """Remember the scalars of one step."""
        for name, value in scalars.items():
            self._window[f"train_{task}/{name}"].append(value)
        self._window["loss"].append(scalars["loss"])

    def log(self, done: int) -> None:
        """Write the means since the last call, the learning rates, and the speed, without compilation."""
        last_done, last_time = self._last
        now = time.monotonic()
        speed = (done - last_done) / max(now - last_time, 1e-9)
        self._last = (done, now)
        means = {name: finite_mean(values) for name, values in self._window.items()}
        self._window.clear()
        loss = means.pop("loss", float("nan"))
        means["train/steps_per_second"] = speed
        means["train/seconds_per_step"] = 1 / speed if speed else float("nan")
        means["train/clips_per_second"] = speed * self._clips
        means["train/share_of_time_waiting_for_data"] = self._waited / max(now - last_time, 1e-9)
        means["train/learning_rate"] = float(self._rate(done - 1))
        means |= {f"learning_rate/{name}": rate(done - 1) for name, rate in self._rates.items()}
        means |= {f"memory/{name}": value for name, value in device_memory().items()}
        if self._compiled:
            means["train/compilations"] = self._compiled.count
        self._waited = 0.0
        self._write("write_scalars", done, means)
        self.progress.report(done, loss, speed)

    def evaluation(self, step: int, label: str, metrics: dict[str, float], images: dict[str, np.ndarray]) -> None:
        """Write the numbers and pictures of one evaluation; `label` is `raw` or `ema`."""
        row = {"step": step, "weights": label, **metrics}
        same = {"step": step, "weights": label}.items()
        self.history = [old for old in self.history if not same <= old.items()] + [row]
        if self._main:
            write_json(self._file, self.history, indent=1)
        self._write("write_scalars", step, {f"eval_{label}/{name}": value for name, value in metrics.items()})
        if images:
            self._write("write_images", step, {f"{label}/{name}": image for name, image in images.items()})
        scores = ", ".join(f"{k} {v:.2f}" for k, v in metrics.items())
        seen = f"; pictures in {self._file.parent / SAMPLES}" if images else ""
        self.progress.say(f"step {step}, {label} weights: {scores}{seen}")

    def restart_clock(self) -> None:
        """Leave the time since the last `log` out of the speed (evaluation, checkpoint)."""
        self._waited = 0.0
        self._last = (self._last[0], time.monotonic())

    def close(self) -> None:
        self.progress.close()
        self._write("flush")
        self._write("close")

    @contextlib.contextmanager
    def waiting(self):
        """The time in which a step waits for its batch."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextlib.contextmanager
    def compiling(self, program: str):
        """The time in which the first step of a program is sent off, since it is compiled before.

        It is told before, with what it took last time, and left out of the speed: otherwise the first steps would make
        a run look hundreds of times longer than it is.
        """
        known = read_seconds(self._seconds_file)
        last = f", which took {known[program]:.0f} s last time" if program in known else ""
        self.progress.say(f"compiling {program}{last}")
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self._last = (self._last[0], self._last[1] + seconds)
        if self._main:
            with self._telling(COMPILE_SECONDS):
                write_json(self._seconds_file, known | {program: round(seconds, 1)}, indent=1)

    def skipped(self, done: int) -> None:
        """Count a step that left the weights as they were."""
        self._skipped += 1
        self._write("write_scalars", done, {"train/skipped_steps": self._skipped})

    def broken_record(self, done: int, line: str) -> None:
        """Count a clip that was replaced because it could not be read; each reason is said once."""
        self._broken[line] += 1
        count = sum(self._broken.values())
        self._write("write_scalars", done, {"train/broken_records": count})
        if self._broken[line] == 1:
            self.progress.say(f"{line}; another clip in its place, {count} so far")

    def evaluated(self, step: int) -> bool:
        """Whether both kinds of weights have their numbers of a step."""
        return {"raw", "ema"} <= {row["weights"] for row in self.history if row["step"] == step}

    def _open(self, name: str, make: Callable[[], Any]) -> None:
        """Add a writer of scalars, texts and images."""
        with self._telling(name):
            self._writers[name] = make()

    def _write(self, method: str, *args) -> None:
        """Call every writer."""
        for name, writer in list(self._writers.items()):
            with self._telling(name):
                getattr(writer, method)(*args)

    @contextlib.contextmanager
    def _telling(self, name: str):
        """What goes wrong in a writer is told once and ends no training."""
        try:
            yield
        except Exception as error:  # writers work in threads and wrap whatever the disk or the network says
            self._writers.pop(name, None)
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.progress.say(f"warning: {name} cannot be written ({line}); the run goes on without them")


def device_memory() -> dict[str, float]:
    """GiB that the first device of this process holds now and held at most, where it says so."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    names = {"bytes_in_use": "in_use_gib", "peak_bytes_in_use": "peak_gib"}
    return {shown: statistics[name] / 2**30 for name, shown in names.items() if name in statistics}


def finite_mean(values: list[float]) -> float:
    """The mean of those values that are finite: a step that is skipped leaves no gap in a chart."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def read_seconds(file: pathlib.Path) -> dict[str, float]:
    """Seconds by program, none if the file is not there or has something else: they are told and serve nothing more."""
    try:
        rows = json.loads(file.read_text())
        return {name: float(value) for name, value in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def read_history(file: pathlib.Path) -> list[dict]:
    """Rows of `metrics.json`, none if it is not there.

    Raises:
      UserError: it is not what a run has written.
    """
    try:
        rows = json.loads(file.read_text())
        if not (isinstance(rows, list) and all({"step", "weights"} <= row.keys() for row in rows)):
            raise ValueError("no list of evaluations")
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: {error}; expected a row for each evaluation: restore it, or move it away") from None
    return rows
