"""The stored training run of the published TarViS, walked by our own step. See tests/golden/README.md.

`run` gives everything that the golden files store of a run, under their names. Nothing is random: the points come from
a low-discrepancy sequence, drop path is off, and weights come from the rule through our converter.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tarvis_golden
import weights_rule
from training_record import Record

from vps_jax import config, convert, models, tasks
from vps_jax.losses import matcher
from vps_jax.models.mask_decoder import LEVELS
from vps_jax.ops import sampling
from vps_jax.tasks import terms
from vps_jax.train import optimizer
from vps_jax.train import step as train_step
from vps_jax.train.optimizer import clip_by_global_norm, make_optimizer, make_schedule
from vps_jax.train.sharding import make_mesh, put_batch, state_sharding
from vps_jax.train.state import create_state
from vps_jax.train.step import StepOptions, make_step, make_update
from vps_jax.types import Clip

CASE = "tarvis_h_train20"
MODEL = {**tarvis_golden.SWIN_TINY, "vos": False, "drop_path_rate": 0.0}
SEMANTIC_QUERIES = "embedding_container._semantic_queries"
PLASTIC = 1.3247179572447460  # root of g^3 = g + 1


class Batch(NamedTuple):
    """A batch in the form of `Clip`, with what the run is to follow; every array has leading `b`.

    Attributes:
      images: `images` uint8 `[b, t, h, w, 3]`; `attend`, per level bool `[b, rounds, q, s]`, or None for own masks.
      ids, instance_classes: see `types.Clip`.
      base, shift_instance, shift_semantic: `[b, m, 2]`, `[b, d, n, t, 2]`, `[b, d, t, 2]`, see `sampling.Draw`.
      columns: assignment to follow, int32 `[b, d, n]`, or None for one's own.
    """

    images: Mapping[str, Any]
    ids: Any
    instance_classes: Any
    base: Any
    shift_instance: Any
    shift_semantic: Any
    columns: Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One of the stored runs.

    Attributes:
      prefix: of its arrays in the golden file; `free_` and `joint_` choose their points, the others are given them.
      steps: how many the file stores.
      optim: see `train.optimizer.make_optimizer`.
      ema_decay: final decay of the average.
      tasks: per step in turn (task, semantic group).
      model: `config.model`.
      accumulate: micro-batches of a step.
      follow: whether masks and assignments are the stored ones.
      make_tx: the optimizer of (optim, parameters).
      patches: what is replaced while it runs, as arguments of `mock.patch.object`.
    """

    prefix: str
    steps: int
    optim: Mapping[str, Any]
    ema_decay: float
    tasks: tuple[tuple[tasks.Task, str], ...]
    model: Mapping[str, Any]
    accumulate: int = 1
    follow: bool = False
    make_tx: Callable = make_optimizer
    patches: tuple[tuple[Any, str, Any], ...] = ()

    @property
    def chooses_points(self) -> bool:
        return self.prefix in ("free_", "joint_")


def recipe(manifest: dict, arrays: dict[str, np.ndarray], prefix: str) -> Recipe:
    """The stored run of a prefix (`free_`, `joint_`, `accumulate_`, `together_`, or none for the followed one)."""
    told = manifest["settings"]
    numbers = {**told["points"], "semantic_weight": told["semantic_w_ce"], "normalize_clips": 1}
    numbers["regularization"] = told["semantic_logit_regularization_loss"]
    numbers["ignore_null_classes"] = told["ignore_null_class_logits"]
    optim = dataclasses.asdict(config.Optim()) | {k: v for k, v in told["optim"].items() if k != "backbone_lr_scale"}
    scales = {"backbone": told["optim"]["backbone_lr_scale"], "rest": 1.0}
    optim["lr_groups"] = tuple((name, pattern, scales[name]) for name, pattern, _ in optim["lr_groups"])
    panoptic = tasks.make_task("panoptic", numbers, num_classes=told["classes"])
    made = Recipe(
        prefix=prefix,
        steps=len(arrays[f"{prefix}loss"]),
        optim=optim,
        ema_decay=float(re.search(r"min\(([\d.]+)", told["ema"])[1]),
        tasks=((panoptic, told["semantic_group"]),),
        model=MODEL,
        accumulate=2 if prefix == "accumulate_" else 1,
        follow=prefix == "",
    )
    if prefix == "together_":
        return normalized_over(made, None)
    if prefix in ("free_", "joint_"):
        made = dataclasses.replace(made, optim={**optim, **manifest["free_run"]["optim"]})
    return joint(made, manifest, numbers) if prefix == "joint_" else made


def joint(made: Recipe, manifest: dict, numbers: Mapping[str, Any]) -> Recipe:
    """The recipe with three tasks in turn, each with a semantic group of its own."""
    told, classes = manifest["joint_run"], manifest["settings"]["classes"]
    things = told["thing_classes"]
    of_thing = tuple(things.index(c) if c in things else -1 for c in range(classes))
    semantic = {k: v for k, v in numbers.items() if k not in ("match_points", "mask_points")}
    of_task = {
        "panoptic": tasks.make_task("panoptic", numbers, num_classes=classes),
        "semantic": tasks.make_task("semantic", semantic, num_classes=classes),
        "instance": tasks.make_task(
            "instance", {**numbers, **told["instance_settings"]}, num_classes=len(things), class_map=of_thing
        ),
    }
    groups = tuple((name, n) for name, n in told["semantic_groups"])
    return dataclasses.replace(
        made,
        tasks=tuple((of_task[task], told["group_of_task"][task]) for task in told["tasks"]),
        model={**made.model, "semantic_groups": groups},
    )


def normalized_over(made: Recipe, clips: int | None) -> Recipe:
    """The recipe with losses normalised over so many clips at once."""

    def changed(task):
        return dataclasses.replace(task, numbers=dataclasses.replace(task.numbers, normalize_clips=clips))

    return dataclasses.replace(made, tasks=tuple((changed(task), group) for task, group in made.tasks))


# Inputs


def sequence(index) -> np.ndarray:
    """The low-discrepancy sequence of the plastic number: integers `[...]` to (x, y) in 0..1, `[..., 2]`."""
    return (0.5 + np.asarray(index, np.float64)[..., None] * np.array([1 / PLASTIC, 1 / PLASTIC**2])) % 1.0


def draw_of(step: int, place: int, sizes: tuple[int, int, int], most: int):
    """`base [m, 2]`, `shift_instance [d, n, t, 2]`, `shift_semantic [d, t, 2]` of a place in the batch of a step.

    All are multiples of 2^-20, exact in float32, and their sums lie off all borders of pixels.
    """
    sets, rows, frames = sizes
    place = 2 * step + place
    base = (2 * np.floor(sequence(7919 * place + np.arange(most)) * 2**19) + 1) / 2**20
    maps = sets * rows * frames
    first = 1009 * place * (maps + sets * frames)
    shifts = 2 * np.floor(sequence(first + np.arange(maps + sets * frames))[:, ::-1] * 2**19) / 2**20
    return base, shifts[:maps].reshape(sets, rows, frames, 2), shifts[maps:].reshape(sets, frames, 2)


def most_points(points: Mapping[str, int]) -> int:
    """How many points of a base are ever used."""
    drawn = [3 * n + n // 4 for n in (points["mask_points"], points["semantic_points"])]
    return max(*drawn, points["match_points"])


def batch_of(manifest: dict, arrays: dict[str, np.ndarray], made: Recipe, k: int) -> Batch:
    """The batch of step k."""
    clips = arrays["batch_clips"][k].astype(int)
    sizes = (arrays["match_columns"].shape[1], arrays["instance_classes"].shape[1], arrays["images"].shape[1])
    most = most_points(manifest["settings"]["points"])
    draws = [draw_of(k, place, sizes, most) for place in range(len(clips))]
    base, shift_instance, shift_semantic = (np.stack(a) for a in zip(*draws, strict=True))
    attend, columns = None, None
    if made.follow:
        stored = (arrays[f"attend_level{i}_packed"][k] for i in range(LEVELS))
        bits = [manifest["arrays"][f"attend_level{i}_packed"]["bits_per_row"] for i in range(LEVELS)]
        masks = [np.unpackbits(a, axis=-1)[..., :n].astype(bool) for a, n in zip(stored, bits, strict=True)]
        attend = tuple(np.moveaxis(a, 1, 0) for a in masks)
        columns = np.moveaxis(arrays["match_columns"][k].astype(np.int32), 1, 0)
    ids = arrays[manifest["joint_run"]["ids"] if made.prefix == "joint_" else "ids"][clips]
    shown = {"images": arrays["images"][clips], "attend": attend}
    classes = arrays["instance_classes"][clips]
    return Batch(shown, ids.astype(np.uint16), classes, base, shift_instance, shift_semantic, columns)


# Our step, seen from outside


class Network:
    """The model for `make_step`: follows given attention masks and hands out its own beside the outputs."""

    def __init__(self, sizes: Mapping[str, Any]):
        self.model = models.build(sizes)

    def apply(self, variables, images, *, task, group, train, rngs, mutable):
        """`(outputs, own masks)`, the masks per level `[rounds, b, q, s]`; and no changed collections."""
        assert not mutable
        attend = images["attend"]
        attend = attend and [jnp.moveaxis(a, 1, 0) for a in attend]

        def predict(model, frames):
            maps = model.neck(model.backbone_features(frames, train=train))
            return model.decode(maps, task=task, group=group, attend=attend, train=train)

        outputs, sown = self.model.apply(
            variables, images["images"], method=predict, rngs=rngs, mutable=["intermediates"]
        )
        rounds = sown["intermediates"]["decoder"]["rounds"]
        return (outputs, [rounds[f"attend_{i}"][0] for i in range(LEVELS)]), {}


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A task for `make_step` that takes points, masks and assignments from the batch and reports its own."""

    task: Any
    chooses_points: bool

    @property
    def name(self) -> str:
        return self.task.name

    def make_targets(self, batch: Batch):
        numbers = ("base", "shift_instance", "shift_semantic")
        batch = batch._replace(**{name: getattr(batch, name).astype(jnp.float32) for name in numbers})
        clip = Clip(batch.images["images"], batch.ids, batch.instance_classes)
        return self.task.make_targets(clip), batch

    def loss(self, outputs, targets, key, mesh=None):
        (outputs, masks), (targets, batch) = outputs, targets
        points = None if self.chooses_points else final_points(batch, self.task.numbers)
        with self.replaced(batch) as own_columns:
            loss, found = self.task.loss(outputs, targets, key, mesh=mesh, points=points)
        found = dict(found)
        if own_columns:  # the semantic task has none
            (found["columns"],) = own_columns  # [d, b, n]
        layers = [masks[n % LEVELS][n // LEVELS] for n in range(LEVELS * len(masks[0]))]  # [b, q, s]
        found["open_bits"] = jnp.stack([jnp.sum(m, axis=(1, 2)) for m in layers], axis=1)  # [b, layer]
        if batch.images["attend"] is not None:
            stored = [batch.images["attend"][n % LEVELS][:, n // LEVELS] for n in range(len(layers))]
            found["other_bits"] = sum(jnp.sum(a != b) for a, b in zip(layers, stored, strict=True))
        return loss, jax.lax.stop_gradient(found)

    @contextlib.contextmanager
    def replaced(self, batch: Batch):
        """The batch's random numbers and assignment in place of the step's own, whose assignment goes into a list."""
        own_columns, match = [], matcher.match

        def following(*args, **kwargs):
            own_columns.append(match(*args, **kwargs))
            return own_columns[0] if batch.columns is None else jnp.moveaxis(batch.columns, 1, 0)

        def draw(*_):
            shifts = (jnp.moveaxis(a, 1, 0) for a in (batch.shift_instance, batch.shift_semantic))
            return sampling.Draw(batch.base, tuple(shifts))

        with (
            mock.patch.object(matcher, "match", following),
            mock.patch.object(sampling, "draw", draw),
            mock.patch.object(terms, "over_sets", lambda *result: result),
        ):
            yield own_columns


def final_points(batch: Batch, numbers) -> dict[str, jax.Array]:
    """The points of the injected run, in the form of a task's `points`."""

    def shifted(count, shift):  # [b, d, ..., 2]
        base = batch.base[:, :count].reshape(len(shift), *[1] * (shift.ndim - 2), count, 2)
        points = base + shift[..., None, :]
        return jnp.moveaxis(points - jnp.floor(points), 1, 0)

    return {
        "matcher": batch.base[None, :, : numbers.match_points],
        "instance": shifted(numbers.mask_points, batch.shift_instance),
        "semantic": shifted(numbers.semantic_points, batch.shift_semantic),
    }


class Start(NamedTuple):
    """What runs have in common that differ in the gradient alone: weights as numpy arrays, optimizer, update."""

    weights: Any
    tx: Any
    update: Callable
    shardings: Any


latest: list = []  # the last `Start` behind what it depends on


def start_of(manifest: dict, made: Recipe, folder: pathlib.Path) -> Start:
    """That of a recipe; made once for runs that follow each other."""
    depends_on = folder, manifest["seed"], made.model, made.optim, made.ema_decay, made.make_tx, made.patches
    if not latest or latest[0] != depends_on:
        weights = first_variables(manifest, made, folder)
        tx = made.make_tx(made.optim, weights["params"])
        state = jax.eval_shape(lambda: create_state(weights, tx))
        shardings = state_sharding(make_mesh(devices=jax.devices()[:1]), state)
        update = make_update(tx, shardings, StepOptions(seed=0, ema_decay=made.ema_decay))
        latest[:] = depends_on, Start(weights, tx, update, shardings)
    return latest[1]


def compiled_steps(made: Recipe, update, shardings) -> list:
    """Our step for every task: the one place that knows how it is made."""
    options = StepOptions(seed=0, ema_decay=made.ema_decay, accumulate=made.accumulate)
    return [
        make_step(
            Network(made.model), Recorded(task, made.chooses_points), group, update, shardings=shardings,
            options=options,
        )
        for task, group in made.tasks
    ]  # fmt: skip


# The run and its record


def first_variables(manifest: dict, made: Recipe, folder: pathlib.Path):
    """The rule's weights through the converter, in the compute precision of the process; numpy arrays."""
    listing = json.loads((folder / tarvis_golden.KEYS).read_text())
    arrays = tarvis_golden.published(listing, manifest["seed"])
    rows = 1 + sum(n for _, n in made.model["semantic_groups"])
    width = made.model["hidden_dim"]
    arrays[SEMANTIC_QUERIES] = weights_rule.make(SEMANTIC_QUERIES, (rows, width), manifest["seed"])
    return jax.tree.map(lambda a: np.asarray(a, jnp.float32), convert.to_params(arrays, made.model))


def run(folder: pathlib.Path, made: Recipe, steps: int, *, whole: bool) -> dict[str, np.ndarray]:
    """The first `steps` steps, under the golden file's names without the prefix.

    Beside what the file has: `other_bits [k]`, how many bits of one's own masks differ from the stored ones, and
    `(ema_)change_after{1, 2, 3}`.
    """
    manifest, arrays = golden_files.load(folder, CASE, whole=whole)
    mesh = make_mesh(devices=jax.devices()[:1])
    with contextlib.ExitStack() as stack:
        for patch in made.patches:
            stack.enter_context(mock.patch.object(*patch))
        start = start_of(manifest, made, folder)
        record = Record(made, manifest, start.weights["params"])
        variables = jax.tree.map(jnp.array, start.weights)  # copies, since the steps may write over them
        state = jax.device_put(create_state(variables, start.tx), start.shardings)
        del variables  # half a gigabyte
        programs = compiled_steps(made, start.update, start.shardings)
        for k in range(steps):
            batch = put_batch(mesh, batch_of(manifest, arrays, made, k))
            state, scalars = programs[k % len(programs)](state, batch)
            record.add(jax.tree.map(np.asarray, scalars), state)
    return record.arrays()


@contextlib.contextmanager
def one_gradient_program():
    """Runs inside share the compiled gradient of a task: many differ in the update alone."""
    programs, whole = {}, make_step

    def shared(model, task, group, update, **others):
        made = programs.setdefault((task, group), whole(model, task, group, update, **others))
        return made._replace(update=update)

    with mock.patch.dict(globals(), make_step=shared):
        yield


# Mistakes that the comparison must see


def clip_after_adamw(optim, params):
    """The clip of the global norm behind AdamW instead of before it."""
    return optax.chain(make_optimizer({**optim, "clip_norm": 0}, params), clip_by_global_norm(optim["clip_norm"]))


def decay_on_norms(made: Recipe) -> Recipe:
    kept = tuple(pattern for pattern in made.optim["no_decay"] if "norm" not in pattern)
    assert len(kept) < len(made.optim["no_decay"])
    return dataclasses.replace(made, optim={**made.optim, "no_decay": kept})


def warm_up_one_step_early(made: Recipe) -> Recipe:
    def schedule_of(optim):
        schedule = make_schedule(optim)
        return lambda count: schedule(count + 1)

    return dataclasses.replace(made, patches=((optimizer, "make_schedule", schedule_of),))


def ramp_one_step_early(made: Recipe) -> Recipe:
    ramp = train_step.ramped_decay
    return dataclasses.replace(made, patches=((train_step, "ramped_decay", lambda decay, step: ramp(decay, step + 1)),))


MISTAKES: dict[str, Callable[[Recipe], Recipe]] = {
    "decay_on_norms": decay_on_norms,
    "clip_after_adamw": lambda made: dataclasses.replace(made, make_tx=clip_after_adamw),
    "beta2_0.99": lambda made: dataclasses.replace(made, optim={**made.optim, "b2": 0.99}),
    "warm_up_one_step_early": warm_up_one_step_early,
    "ramp_one_step_early": ramp_one_step_early,
    "normalized_over_2": lambda made: normalized_over(made, 2),
}
