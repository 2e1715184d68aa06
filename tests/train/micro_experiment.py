"""A model and a task of a few numbers, with the interfaces of the real ones, so that training is tested alone."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vps_jax import config, models
from vps_jax.data import pipeline
from vps_jax.types import Clip, TrainBatch

OPTIM = {
    "name": "adamw", "lr": 0.1, "schedule": "steps", "warmup_steps": 0, "decay_steps": (), "decay_factor": 0.1,
    "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.05, "clip_norm": 0.01,
    "lr_groups": (("backbone", "^backbone/", 0.1), ("rest", ".*", 1.0)), "no_decay": ("norm/",),
}  # fmt: skip


class MicroModel(nn.Module):
    """Mean color of a clip -> Dense -> BatchNorm -> Dense; the group picks nothing, dropout uses the rng."""

    @nn.compact
    def __call__(self, images, *, task, group, train):
        del task, group
        x = jnp.asarray(images, jnp.float32).mean((1, 2, 3)) / 255  # [b, 3]
        x = nn.Dense(8, use_bias=False, name="backbone")(x)  # BatchNorm would cancel a bias
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.Dense(4, name="head")(nn.relu(x))
        if train:
            x = x + 0.01 * jax.random.normal(self.make_rng("drop_path"), x.shape)
        return x


class MicroTargets(NamedTuple):
    share: jax.Array  # float32 [b], share of pixels of class 1


@dataclasses.dataclass(frozen=True)
class MicroNumbers:
    label: int = 1
    weight: float = 2.0
    noise: float = 0.01


@dataclasses.dataclass(frozen=True)
class MicroTask:
    name: ClassVar[str] = "micro"
    numbers: MicroNumbers = MicroNumbers()
    num_classes: int = 0
    class_map: tuple[int, ...] | None = None

    def make_targets(self, clip):
        return MicroTargets(jnp.mean(clip.ids == self.numbers.label, axis=(1, 2, 3)))

    def loss(self, outputs, targets, key, mesh=None, points=None):
        del mesh, points
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(outputs.shape[0]))
        noise = jax.vmap(jax.random.uniform)(keys)  # [b]: a key per sample, not per device
        squared = jnp.mean((outputs.sum(-1) - targets.share - self.numbers.noise * noise) ** 2)
        return self.numbers.weight * squared, {"squared": squared}

    def decode(self, outputs):
        return outputs


TASK = MicroTask()


def micro_clip(step: int, batch: int = 8) -> Clip:
    rng = np.random.default_rng([3, step])
    colors = rng.integers(0, 200, (batch, 1, 1, 1, 3), np.uint8)  # far apart, so that BatchNorm is well conditioned
    images = colors + rng.integers(0, 50, (batch, 2, 4, 4, 3), np.uint8)
    ids = rng.integers(0, 3, (batch, 2, 4, 4)).astype(np.uint16)
    return Clip(images, ids, np.zeros((batch, 1), np.int32))


def micro_variables() -> dict:
    model = MicroModel()
    keys = {"params": jax.random.key(0), "drop_path": jax.random.key(1)}
    return dict(model.init(keys, micro_clip(0).images, task="micro", group="g", train=True))


@dataclasses.dataclass(frozen=True)
class MicroConfig:
    """Keys of the model."""

    name: str = "micro"
    semantic_groups: tuple[tuple[str, int], ...] = (("g", 3),)


def micro_config(*, init_from=None, optim=OPTIM, tasks=None, **train) -> config.Experiment:
    """An experiment whose rooms are replaced by this file; call `use_micro_rooms` first."""
    return config.experiment({
        "name": "micro",
        "model": {"name": "micro"},
        "tasks": {"micro": {"label": 1, "weight": 2.0}} if tasks is None else tasks,
        "optim": optim,
        "init_from": init_from or {},
        "data": {"sources": {"clips": {"path": "", "short_side": 4, "task": "micro", "group": "g"}}},
        "train": {
            "steps": 6, "batch_size": 8, "seed": 0, "ema_decay": 0.9, "log_every": 2, "checkpoint_every": 2,
            "evaluate_every": 4, **train,
        },
    })  # fmt: skip


def micro_batches(broken_step=None):
    """A stand-in for `pipeline.train_batches`; some steps may have a color that is not a number."""
    broken = broken_step if isinstance(broken_step, range) else (broken_step,)

    def train_batches(data, *, first_step=0, host=0, num_hosts=1):
        step = first_step
        while True:
            clip = micro_clip(step)
            clip = clip._replace(images=clip.images.astype(np.float32) * (np.nan if step in broken else 1))
            clip = Clip(*(np.split(a, num_hosts)[host] for a in clip[:3]))
            yield TrainBatch("micro", "clips", clip, tuple(f"video{step}/{i:05d}" for i in range(8 // num_hosts)))
            step += 1

    return train_batches


def use_micro_rooms(monkeypatch, broken_step=None, *, stream: bool = True) -> None:
    """Let the loop build the micro model, task and, unless `stream` is off, data."""
    model = config.ModelRow(MicroConfig, config.ClipInference, "micro_experiment:build", "", "")
    task = config.TaskRow(MicroNumbers, "micro_experiment:MicroTask", has_classes=False)
    monkeypatch.setitem(config.MODELS, "micro", model)
    monkeypatch.setitem(config.TASKS, "micro", task)
    monkeypatch.setattr(models, "build", lambda _: MicroModel())
    monkeypatch.setattr(models, "init", lambda model, key, size: micro_variables())
    monkeypatch.setattr(pipeline, "class_tables", lambda data: {})
    if not stream:
        return
    monkeypatch.setattr(pipeline, "train_batches", micro_batches(broken_step))
    monkeypatch.setattr(pipeline, "describe", lambda data: [("micro", "clips", (8, 2, 4, 4))])
    monkeypatch.setattr(pipeline, "fingerprint", lambda data: "0")
    monkeypatch.setattr(pipeline, "same_stream", lambda before, data: before == pipeline.fingerprint(data))
