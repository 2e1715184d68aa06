"""The compiled steps of a run, one per source and shape; their update is the same program."""

from collections.abc import Callable

import numpy as np

from vps_jax.config import source_group
from vps_jax.train.setup import Setup
from vps_jax.train.sharding import put_batch
from vps_jax.train.state import TrainState
from vps_jax.train.step import StepOptions, make_step, make_update


class StepPrograms:
    """The jitted step of every source, made when first needed; `seen` names the compiled programs."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._steps: dict[tuple, Callable] = {}
        self.seen: set[str] = set()
        train = setup.experiment.train
        self._options = StepOptions(train.seed, train.ema_decay, train.accumulate, train.on_nonfinite == "skip")
        self._update = make_update(setup.tx, setup.shardings, self._options)

    def __call__(self, step: int, state: TrainState, batch):
        key = (batch.dataset, self.point_objects(step, batch))
        if key not in self._steps:
            self._steps[key] = self._make(*key)
        self.seen.add(self.name(step, batch))
        return self._steps[key](state, put_batch(self._setup.mesh, batch.clip))

    def name(self, step: int, batch) -> str:
        """What tells the program of a batch from the others: its task, data set and shape."""
        shape = "x".join(map(str, batch.clip.images.shape[1:4]))
        name = f"{batch.task} {batch.dataset} {shape}"
        if batch.task != "vos":
            return name
        return f"{name} {batch.clip.instance_classes.shape[1]} objects, {self.point_objects(step, batch)} by point"

    def point_objects(self, step: int, batch) -> int:
        """How many objects of a VOS batch are given by a point: a draw per object, alike for all clips (tarvis 4.4)."""
        if batch.task != "vos":
            return 0
        train = self._setup.experiment.train
        rng = np.random.default_rng([train.seed, 2, step])
        return int(rng.binomial(batch.clip.instance_classes.shape[1], train.vos_point_likelihood))

    def _make(self, dataset: str, point_objects: int) -> Callable:
        setup = self._setup
        group = source_group(dataset, setup.experiment.data.sources[dataset])
        return make_step(
            setup.model, setup.tasks[dataset], group, self._update, shardings=setup.shardings, options=self._options,
            point_objects=point_objects,
        )  # fmt: skip
