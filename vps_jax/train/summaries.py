"""TensorBoard events through clu, without tensorflow, and the progress line on the terminal.

Weights & Biases gets the same (`wandb_writer`).

clu imports tensorflow only for its own `SummaryWriter`. This module, and no other, puts a writer built on
tensorboard's event file in that place before clu is imported; clu is pinned because the path is private
(spec: stack 3).
"""

import sys
import time
import types

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from vps_jax.files import duration

CHARTS = {  # of the tab "Custom scalars": title -> the scalars that share it, as a regular expression
    "loss by task": "train_[^/]+/loss",
    "gradient norm by task": "train_[^/]+/grad_norm",
    "gradient norm by module": "train_[^/]+/grad_norm/.*",
    "learning rate by group": "learning_rate/.*",
    "objects that keep their query, by task": "train_[^/]+/matched/same_query",
}


class SummaryWriter:
    """The part of clu's writer interface that is used here, on tensorboard's own event files."""

    def __init__(self, log_dir):
        self._writer = EventFileWriter(str(log_dir))

    def write_scalars(self, step: int, scalars) -> None:
        for tag, value in scalars.items():
            self._add(step, scalar_pb(tag, float(value)))

    def write_texts(self, step: int, texts) -> None:
        for tag, text in texts.items():
            self._add(step, text_pb(tag, text))

    def write_images(self, step: int, images) -> None:
        """Images `[n, h, w, 3]` RGB, uint8 or float 0..1."""
        for tag, stack in images.items():
            for i, image in enumerate(np.asarray(stack)):
                self._add(step, Summary(value=[Summary.Value(tag=f"{tag}/{i}", image=png(image))]))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, summary: Summary) -> None:
        self._writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))


def png(image) -> Summary.Image:
    """`[h, w, 3]` RGB as an encoded image message."""
    if image.dtype != np.uint8:
        image = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    height, width, _ = image.shape
    _, data = cv2.imencode(".png", image[..., ::-1])
    return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data.tobytes())


def _clu_writers():
    """clu's metric writers, with our writer where tensorflow's would be."""
    name = "clu.metric_writers.summary_writer"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.SummaryWriter = SummaryWriter
        sys.modules[name] = module
    from clu import metric_writers

    return metric_writers


def chart_layout(scores) -> Summary:
    """Charts that several scalars share: `CHARTS`, and the scores of raw and averaged weights.

    Args:
      scores: names of numbers of an evaluation.
    """
    evaluation = {f"{name}, raw and EMA weights": f"eval_(raw|ema)/{name}" for name in scores}
    rows = {"evaluation": evaluation, "training": CHARTS}
    categories = [
        layout_pb2.Category(
            title=title,
            chart=[
                layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=[f"^{tags}$"]))
                for name, tags in charts.items()
            ],
        )
        for title, charts in rows.items()
    ]
    content = make_tensor_proto(layout_pb2.Layout(category=categories).SerializeToString())
    kind = metadata.create_summary_metadata()
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=content, metadata=kind)])


def make_writer(workdir, *, just_logging: bool = False, resumed: int | None = None, scores=()):
    """clu's asynchronous writer of scalars, texts and images into `workdir`; only process 0 writes files.

    A run that is resumed after so many steps may repeat some of an earlier start: TensorBoard drops what that wrote,
    since from the second one on a mark of a start says so. Who trains no further, such as an evaluation, leaves none.

    Args:
      resumed: steps done before, 0 at the first start; None for who does not train.
      scores: see `chart_layout`.
    """
    if not just_logging:
        start, now = EventFileWriter(str(workdir)), time.time()
        if resumed is not None:
            session = SessionLog(status=SessionLog.START)
            start.add_event(Event(step=resumed + 1, wall_time=now, session_log=session))
        start.add_event(Event(step=0, wall_time=now, summary=chart_layout(scores)))
        start.close()
    return _clu_writers().create_default_writer(str(workdir), just_logging=just_logging)


class ProgressLine:
    """Steps done, loss, steps per second and time left: live on a terminal, one line per report elsewhere.

    Args:
      total: steps of the whole run.
      done: steps done before this start.
      show: False writes nothing (other processes than the first).
    """

    def __init__(self, total: int, done: int, *, show: bool = True):
        self._total, self._show = total, show
        console = Console(stderr=True)
        self._live = None
        if show and console.is_terminal:
            columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._live = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
            self._task = self._live.add_task("", total=total, completed=done)
            self._live.start()

    def step(self, done: int) -> None:
        """Move the bar."""
        if self._live:
            self._live.update(self._task, completed=done)

    def report(self, done: int, loss: float, steps_per_second: float) -> None:
        """Say how it goes."""
        text = f"loss {loss:.4g}  {steps_per_second:.2f} steps/s"
        if self._live:
            self._live.update(self._task, completed=done, description=text)
        elif self._show:
            left = (self._total - done) / steps_per_second if steps_per_second else 0
            print(f"step {done}/{self._total}  {text}  {duration(left)} left", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._live:
            self._live.console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif self._show:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
