"""What streams the scores of a video, whatever the model; `config.MODELS` names the predictor of each model.

A predictor is built from a module, its variables and the frozen dataclass of its row, `config.infer`. Further
predictors need no base class: a class with these attributes and methods, named in a row, is run, evaluated and taken
into ensembles like ours.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from vps_jax import models
from vps_jax.config import TASKS, model_row
from vps_jax.datasets.classes import ClassTable
from vps_jax.infer.views import check_views, with_views
from vps_jax.media.video import Video
from vps_jax.parsing import parse, resolve
from vps_jax.types import FrameScores, PanopticFrame, UserError

DECODED_AHEAD = 4  # frames


class Predictor(Protocol):
    """A model that scores the frames of one video after another.

    A class may also have
      `check(module, infer)`: static; raises UserError for settings that the module cannot run with, before its weights
        are read.
      `grid(infer, original) -> Geometry`: static; needed to give the things of an ensemble, whose members are averaged
        on its stride-4 grid for frames of `original` (height, width) pixels.
      `network_size(original) -> (height, width)`: of frames of `original` (height, width) pixels as the network sees
        them; videos of one size share its compiled programs, and follow one another.
      `network(original) -> Network`: what `vps-jax export` writes, for frames of `original` (height, width) pixels.
      `own_views`: True if it averages the views of `infer.flip` and `infer.scales` itself.
      `also` in its constructor, and `stream_sets`: see `SetPredictor`.

    Attributes:
      kind: what `FrameScores.scores` are: `logits`, unbounded, or `probabilities`, sums of probabilities (0 and up).
      final_identities: whether a track's class is known in the frame itself; otherwise frames wait for their tracks.
      programs: how often each program was compiled in this process, by its name and shape.
    """

    kind: str
    final_identities: bool
    programs: Mapping[str, int]

    def stream(self, video: Video) -> Iterator[FrameScores]:
        """Scores of the frames of a video, in order, in bounded memory."""

    def fuse(self, frames: Iterable[FrameScores], classes: ClassTable) -> Iterator[PanopticFrame]:
        """Panoptic frames from a stream, whose scores may have been averaged; `fusion.fuse_frames` is one way."""


class Network(NamedTuple):
    """A model as one function of arrays: what its predictor computes before stitching and fusion, with the same bits.

    Attributes:
      function: (variables, *inputs) -> a tuple of arrays, as many as `outputs`.
      variables: of the model.
      inputs: name -> an array or `jax.ShapeDtypeStruct`; the first is `frames`, RGB uint8. Of an array the value is
        that for the first call; later calls get the output of its name.
      outputs: name -> axes and meaning.
      about: how frames become the input.
    """

    function: Callable
    variables: Mapping
    inputs: Mapping[str, Any]
    outputs: Mapping[str, str]
    about: str


class SetPredictor(Predictor, Protocol):
    """A predictor of a model with several query sets, which share most of the work.

    Its constructor takes `also`, more settings that differ in `task` and `semantic_group` alone.
    """

    def stream_sets(self, video: Video) -> Iterator[tuple[FrameScores, ...]]:
        """As `stream`, for the settings themselves and each of `also`."""


def make_predictor(
    model: Any, variables: Mapping, infer: Any = None, *, classes: ClassTable | None = None, also: Sequence[Any] = ()
) -> Predictor:
    """The predictor of a model; keep it for all videos.

    Args:
      model: `config.model`, a mapping or the dataclass of its row.
      variables: parameters and statistics of its module.
      infer: `config.infer`, a mapping or the dataclass of the row; None for the published values.
      classes: if given, the semantic group must have as many.
      also: see `SetPredictor`.

    Raises:
      UserError: an unknown model or setting, or settings that the model cannot run with.
    """
    infer, predictor = infer_settings(model, infer), predictor_class(model)
    return build_predictor(predictor, checked_module(model, infer, classes), variables, infer, also=also)


def build_predictor(predictor: Any, module: Any, variables: Mapping, infer: Any, *, also: Sequence[Any] = ()):
    """A predictor of a class, with the views that its settings ask for; see `views`."""
    if getattr(predictor, "own_views", False):
        return predictor(module, variables, infer)
    return with_views(predictor, module, variables, infer, also)


def checked_module(model: Any, infer: Any, classes: ClassTable | None = None):
    """The module of a model, which can run with these settings and classes; see `make_predictor`."""
    module = models.build(model)
    check_settings(predictor_class(model), module, infer)
    if classes is not None:
        check_classes(module, infer, classes)
    return module


def infer_settings(model: Any, infer: Any = None) -> Any:
    """`config.infer` as the dataclass of the model's row; None gives the published values."""
    return parse(_row(model).infer, {} if infer is None else infer, "infer")


def predictor_class(model: Any) -> Any:
    """What the model's row names as its predictor."""
    return resolve(_row(model).predictor)


def _row(model: Any):
    return model_row(model["name"] if isinstance(model, Mapping) else model.name)


def check_settings(predictor: Any, module: Any, infer: Any) -> None:
    """Raises UserError for a semantic group that the module lacks, and what the predictor's own `check` finds."""
    if getattr(infer, "semantic_group", None) is not None:
        group_classes(module, infer.semantic_group)
    if not getattr(predictor, "own_views", False):
        check_views(infer)
    if hasattr(predictor, "check"):
        predictor.check(module, infer)


def check_classes(module: Any, infer: Any, classes: ClassTable) -> None:
    """Raises UserError unless the module's semantic group has as many classes as the class list."""
    task = getattr(infer, "task", None)
    if not hasattr(module, "semantic_groups") or (task in TASKS and not TASKS[task].has_classes):
        return
    count, expected = group_classes(module, getattr(infer, "semantic_group", None)), len(classes.names)
    if count != expected:
        raise UserError(
            f"semantic group {infer.semantic_group!r} has {count} classes; expected the {expected} of the class list, "
            "choose another group or checkpoint"
        )


def group_classes(module: Any, name: str | None) -> int:
    """Number of classes of a semantic group of a module; None is the first.

    Raises:
      UserError: no such group.
    """
    groups = dict(module.semantic_groups)
    name = next(iter(groups)) if name is None else name
    if name not in groups:
        raise UserError(f"semantic_group={name!r}: the model has {', '.join(groups)}; choose one of them")
    return groups[name]
