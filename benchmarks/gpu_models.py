"""Rows of a GPU session that run whole networks: golden numbers, training steps, inference."""

import dataclasses
import functools
import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import floors
from benchmarks.gpu_sizes import GROUP, Sizes, classes_of, full_model
from benchmarks.gpu_timing import against_floor, memory, milliseconds, timed
from vps_jax import config, models
from vps_jax.tasks import make_task
from vps_jax.train.optimizer import make_optimizer
from vps_jax.train.sharding import make_mesh, put_batch, state_sharding
from vps_jax.train.state import create_state
from vps_jax.train.step import StepOptions, make_step, make_update
from vps_jax.types import Clip

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "tests" / "golden"
PUBLISHED_GROUPS = (("CITYSCAPES_VPS", 19), ("KITTI_STEP", 19), ("OVIS", 25), ("VIPSEG", 124), ("YOUTUBE_VIS", 40))
GOALS = {("swin_large", 512, 960, 4): "135 ms, at most 60 GiB, on an H200"}


def golden_numbers(sizes: Sizes) -> dict:
    """Backbone and neck of Swin-T against the published system's numbers, in full float32.

    The largest difference over its tolerance; at most 1 is within.
    """
    sys.path.insert(0, str(GOLDEN))
    import weights_rule

    from vps_jax import convert

    listing = json.loads((GOLDEN / "tarvis_swin_tiny_keys.json").read_text())
    cases = {name: json.loads((GOLDEN / f"{name}.json").read_text()) for name in sizes.golden}
    manifest = cases[sizes.golden[0]]
    sizes_of = {**full_model(), "backbone": "swin_tiny", "semantic_groups": PUBLISHED_GROUPS, "dtype": "float32"}
    model = models.build(sizes_of)
    variables = jax.device_put(convert.to_params(weights_rule.make_all(listing, manifest["seed"]), sizes_of))
    file, clip = manifest["input"].split(":")
    with np.load(GOLDEN / file) as clips:
        images = pad(clips[clip], manifest["padded_height_width"])[None]
    with jax.default_matmul_precision("highest"):
        maps = jax.jit(functools.partial(model.apply, method="backbone_features"))(variables, images)
        found = {f"res{i + 2}": np.moveaxis(np.asarray(m[0]), -1, 1) for i, m in enumerate(maps)}
        if len(cases) > 1:
            levels, finest = jax.jit(functools.partial(model.apply, method="neck_maps"))(variables, maps)
            names = ("neck_32x", "neck_16x", "neck_8x", "neck_4x")
            neck = zip(names, (*levels, finest), strict=True)
            found |= {name: np.moveaxis(np.asarray(m), -1, 2) for name, m in neck}
    return {f"{name} over tolerance": ratio for case in cases for name, ratio in beyond(case, cases[case], found)}


def beyond(case: str, manifest: dict, found: dict[str, np.ndarray]):
    """Largest difference over the tolerance of every array of a case that was computed."""
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        for name, entry in manifest["arrays"].items():
            if name in found and "tolerance" in entry:
                ours = strided(found[name], entry["slicing"])
                yield name, float(np.abs(ours - arrays[name]).max()) / entry["tolerance"]["max_abs"]


def pad(clip: np.ndarray, size) -> np.ndarray:
    missing = [n - have for n, have in zip(size, clip.shape[1:3], strict=True)]
    return np.pad(clip, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)], constant_values=128)


def strided(array: np.ndarray, slicing: str) -> np.ndarray:
    """The part of a map that a golden file stores: all of it, or every y-th row and x-th column."""
    if slicing == "all":
        return array
    y, x = (int(n) for n in slicing.split("strides [")[1].split("]")[0].split(","))
    return array[..., y // 2 :: y, x // 2 :: x]


def random_variables(model) -> dict:
    """Small random parameters, made without compiling an initialiser."""
    shapes = models.shapes(model)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: 0.02 * rng.standard_normal(a.shape, np.float32), shapes)


def example_clip(batch: int, frames: int, height: int, width: int, classes: int, rows: int = 64) -> Clip:
    """Noise under a label map of squares of 32 pixels, twelve objects at most."""
    rng = np.random.default_rng(0)
    objects = min(12, rows)
    squares = rng.integers(0, 1 + objects + classes, (batch, frames, -(-height // 32), -(-width // 32)))
    squares = np.where(squares > objects, squares + rows - objects, squares)
    ids = squares.repeat(32, axis=2).repeat(32, axis=3)[:, :, :height, :width].astype(np.uint16)
    table = np.where(np.arange(rows) < objects, np.arange(rows) % classes, -1).astype(np.int32)
    images = rng.integers(0, 256, (batch, frames, height, width, 3), np.uint8)
    return Clip(images, ids, np.broadcast_to(table, (batch, rows)))


def network(sizes: Sizes, backbone: str):
    return models.build({**sizes.model, "backbone": backbone})


@dataclasses.dataclass(frozen=True)
class Scoped:
    """A task whose part of a step bears a name in the profile."""

    task: object

    @property
    def name(self) -> str:
        return self.task.name

    def make_targets(self, clip):
        return self.task.make_targets(clip)

    def loss(self, *args, **kwargs):
        with jax.named_scope("losses"):
            return self.task.loss(*args, **kwargs)


def scoped_optimizer(tx):
    def update(*args):
        with jax.named_scope("optimizer"):
            return tx.update(*args)

    return optax.GradientTransformation(tx.init, update)


def train_program(sizes: Sizes, backbone: str, height: int, width: int, batch: int):
    """The compiled `train.step.Step`, its first state, its clips, and seconds to compile."""
    model = network(sizes, backbone)
    variables = random_variables(model)
    task = make_task("panoptic", sizes.task, num_classes=classes_of(sizes))
    tx = scoped_optimizer(make_optimizer(dataclasses.asdict(config.Optim()), variables["params"]))
    state, mesh = create_state(variables, tx), make_mesh(devices=jax.devices()[:1])
    shardings, options = state_sharding(mesh, state), StepOptions(0, 0.999)
    update = make_update(tx, shardings, options)
    step = make_step(model, Scoped(task), GROUP, update, shardings=shardings, options=options)
    state = jax.device_put(state, shardings)
    clip = put_batch(mesh, example_clip(batch, sizes.frames, height, width, classes_of(sizes)))
    start = time.perf_counter()
    compiled = step.compile(state, clip)
    return compiled, state, clip, time.perf_counter() - start


def training_floor(sizes: Sizes, backbone: str, height: int, width: int, batch: int) -> floors.Floor:
    """Three forward passes, the losses' own arithmetic left out."""
    model = network(sizes, backbone)
    shapes = models.shapes(model)
    images = jax.ShapeDtypeStruct((batch, sizes.frames, height, width, 3), jnp.uint8)
    forward = functools.partial(model.apply, task="panoptic", group=GROUP)
    return floors.Floor(3 * floors.flop(forward, shapes, images))


def step(sizes: Sizes, backbone: str, height: int, width: int, batch: int) -> dict:
    """A training step: milliseconds, memory, fraction of its floor."""
    program, state, clip, seconds = train_program(sizes, backbone, height, width, batch)
    kept = [program(state, clip)]

    def next_step():
        kept[0] = program(kept[0][0], clip)
        return kept[0]

    found = {"ms": milliseconds(next_step, sizes.repeats), "compile_s": seconds, **memory(program.gradients)}
    found |= against_floor(found["ms"], training_floor(sizes, backbone, height, width, batch), sizes)
    found["loss"] = float(kept[0][1]["loss"])
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    # of this program only where no earlier row took more
    return found | {
        "peak_gib_of_the_process": peak / 2**30,
        "goal": GOALS.get((backbone, height, width, batch), "none"),
    }


def inference(sizes: Sizes) -> dict:
    """A clip in the middle of a video: all frames through the backbone, and with the kept features of shared ones."""
    backbone, frames, shared, height, width = sizes.inference
    model = network(sizes, backbone)
    variables = jax.device_put(random_variables(model))
    images = np.random.default_rng(0).integers(0, 256, (1, frames, height, width, 3), np.uint8)
    features = functools.partial(model.apply, method="backbone_features")
    decode = functools.partial(model.apply, task="panoptic", group=GROUP, method="decode_features")

    def whole(variables, images):
        return decode(variables, features(variables, images))

    def with_kept(variables, images, kept):
        new = features(variables, images)
        return decode(variables, tuple(jnp.concatenate([a, b], axis=1) for a, b in zip(kept, new, strict=True)))

    floor = floors.Floor(floors.flop(whole, variables, images))
    everything = timed(whole, variables, images, sizes=sizes, floor=floor)
    kept = jax.jit(features)(variables, images[:, :shared])
    fewer = images[:, shared:]
    floor = floors.Floor(floors.flop(with_kept, variables, fewer, kept))
    reusing = timed(with_kept, variables, fewer, kept, sizes=sizes, floor=floor)
    return {"all frames": everything, "with kept features": reusing, "goal": "56 ms at 12 x 576 x 1024"}
