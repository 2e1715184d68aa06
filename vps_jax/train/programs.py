"""The compiled steps of a run, one per task, data set and shape."""

from collections.abc import Callable

import numpy as np

from vps_jax.train.setup import Setup, group_of, source_task
from vps_jax.train.sharding import put_batch
from vps_jax.train.state import TrainState
from vps_jax.train.step import StepOptions, make_step


class StepPrograms:
    """The jitted step of every (task, data set), made when first needed; `seen` names the compiled programs."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._steps: dict[tuple, Callable] = {}
        self.seen: set[str] = set()
        settings = setup.config["train"]
        self._options = StepOptions(
            settings["seed"], settings["ema_decay"], settings["accumulate"], settings["on_nonfinite"] == "skip"
        )

    def __call__(self, step: int, state: TrainState, batch):
        points = self.point_objects(step, batch)
        key = (batch.task, batch.dataset, points)
        if key not in self._steps:
            self._steps[key] = self._make(*key)
        shape = "x".join(map(str, batch.clip.images.shape[1:4]))
        objects = f" {batch.clip.instance_classes.shape[1]} objects, {points} by point" if batch.task == "vos" else ""
        self.seen.add(f"{batch.task} {batch.dataset} {shape}{objects}")
        return self._steps[key](state, put_batch(self._setup.mesh, batch.clip))

    def point_objects(self, step: int, batch) -> int:
        """How many objects of a VOS batch are given by a point: a draw per object, alike for all clips (tarvis 4.4)."""
        if batch.task != "vos":
            return 0
        settings = self._setup.config["train"]
        rng = np.random.default_rng([settings["seed"], 2, step])
        return int(rng.binomial(batch.clip.instance_classes.shape[1], settings["vos_point_likelihood"]))

    def _make(self, task: str, dataset: str, point_objects: int) -> Callable:
        config, setup = self._setup.config, self._setup
        return make_step(
            setup.model, source_task(config, task, dataset), group_of(config, dataset), tx=setup.tx,
            shardings=setup.shardings, options=self._options, point_objects=point_objects,
        )  # fmt: skip
