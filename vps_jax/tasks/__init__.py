"""Tasks: what a model is trained for and asked for. One object makes the targets, the loss and the scores of a task."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from vps_jax.config import task_row
from vps_jax.parsing import parse, resolve
from vps_jax.types import Array, Clip, ClipPrediction, QueryOutputs, Targets, UserError


@runtime_checkable
class Task(Protocol):
    """A task on the clips of one data set. One that is asked about given objects has `exemplars` too, see `tasks.vos`.

    Attributes:
      name: key of `config.TASKS`, which the model is asked for.
      numbers: frozen dataclass of the row, its settings.
      num_classes: classes of the task, `k`; 0 for a task without classes.
      class_map: class of the task for every class of the data set, -1 for none; None when the lists are the same.
    """

    name: str
    numbers: Any
    num_classes: int
    class_map: tuple[int, ...] | None

    def make_targets(self, clip: Clip) -> Targets:
        """Targets of a batch of clips with leading `b`, on the device."""

    def loss(self, outputs: QueryOutputs, targets: Targets, key, mesh=None, points=None) -> tuple[Array, dict]:
        """Loss summed over all prediction sets.

        Args:
          outputs: of the model in training.
          targets: of `make_targets`.
          key: randomness of all points.
          mesh: the mesh ('data', 'fsdp') that the batch is sharded over, or None.
          points: points to use instead of drawing them, see the task's file; or None.

        Returns:
          scalar, and the weighted terms that it is the sum of, with statistics of a matching (`matcher.STATISTICS`).
        """

    def decode(self, outputs: QueryOutputs) -> ClipPrediction:
        """Scores of the last prediction set, every array with a leading `b`."""


def make_task(
    name: str, numbers: Any = None, *, num_classes: int | None = None, class_map: Sequence[int] | None = None
) -> Task:
    """The task of a name.

    Args:
      name: key of `config.TASKS`.
      numbers: `config.tasks[name]`, a mapping or the row's dataclass; None for the published values.
      num_classes: classes of the task; must be given to a task that has classes.
      class_map: class of the task for every class of the data set, -1 for none; None when the lists are the same.

    Raises:
      UserError: unknown name or setting, or no number of classes.
    """
    row = task_row(name)
    if row.has_classes and not num_classes:
        raise UserError(f"tasks.{name}: num_classes={num_classes}; expected the classes of the semantic group")
    numbers = parse(row.numbers, {} if numbers is None else numbers, f"tasks.{name}")
    return resolve(row.build)(numbers, num_classes or 0, class_map and tuple(class_map))
