"""A training step on a CPU and its parts, forward and with backward, against an older checkout of this repository.

  python benchmarks/training_step.py                              # seconds of this checkout
  python benchmarks/training_step.py --before ../older_checkout   # and the ratios to the older one
  python benchmarks/training_step.py --only step tiny             # some of the rows

Rows: `points`, the choice of uncertain points in 24 maps, and `finest`, the neck's part at stride 4; `backbone`,
`neck`, `decoder` and `losses` of TarViS with Swin-T for one clip of 3 x 256 x 448, the whole `step` of it with
optimiser and average, and `tiny`, the step of eight clips with the model of `configs/tiny.py`. Each checkout runs in a
process of its own; the two take turns, so that a change of the machine's speed meets both. Times are medians: seconds
of CPU in all threads, which other load moves little, and seconds on the clock. Compile times are of one compilation
each, without a cache.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import pathlib
import statistics
import sys

from checkouts import Checkout, seconds

FOLDER = pathlib.Path(__file__).resolve().parents[1]
CLIP = (3, 256, 448)
TINY_BATCH = 8  # as in the config of earlier checkouts
PARTS = {"backbone": "backbone_features", "neck": "neck_maps", "decoder": "decode"}
ROWS = ("points", "finest", "backbone", "neck", "decoder", "losses", "step", "tiny")


# ---- the process of one checkout: reads "make ROW" or "run ROW", answers a line of JSON


def serve(remat: bool) -> None:
    with contextlib.suppress(ImportError):  # training runs of earlier checkouts do not do this
        from vps_jax.command_line import with_huge_pages

        with_huge_pages()
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    programs = {}
    for line in sys.stdin:
        order, row = line.split()
        if order == "make":
            programs[row], found = make(row, remat)
        else:
            found = {name: seconds(call) for name, call in programs[row].items()}
        print(json.dumps(found), flush=True)


def make(row: str, remat: bool) -> tuple[dict, dict]:
    """Calls of a row's programs, already warm, by name, and the (CPU, clock) seconds of compiling each."""
    import jax

    calls, compiling = {}, {}
    for name, compile_it, arguments in lowered_programs(row, remat):
        kept = []
        compiling[name] = seconds(lambda: kept.append(compile_it()))  # noqa: B023
        compiled = kept[0]
        state = [arguments]

        def call(compiled=compiled, state=state, step=row in ("step", "tiny")):
            result = jax.block_until_ready(compiled(*state[0]))
            if step:  # the state is donated
                state[0] = (result[0], *state[0][1:])

        call()
        calls[name] = call
    return calls, compiling


def lowered_programs(row: str, remat: bool):
    """(name, function that compiles a lowered program, its arguments) of a row."""
    import jax

    if row in ("step", "tiny"):
        yield "step", *step_program(row, remat)
        return
    own = {"points": points, "finest": finest, "losses": losses}
    function, arguments = own[row]() if row in own else part_of_model(row, remat)
    yield "forward", jax.jit(function).lower(*arguments).compile, arguments
    if row == "points":  # no gradient passes
        return
    cotangent = noise(jax.eval_shape(function, *arguments))

    def both(cotangent, *arguments):
        of, fixed = (arguments[:1], arguments[1:]) if row == "backbone" else (arguments, ())
        value, pull = jax.vjp(lambda *a: function(*a, *fixed), *of)
        return value, pull(cotangent)

    yield "with backward", jax.jit(both).lower(cotangent, *arguments).compile, (cotangent, *arguments)


def part_of_model(row: str, remat: bool):
    """A part as a function of variables and its input, and both."""
    import jax

    model, variables, clip = swin_t(remat)
    how = {
        "backbone": {"train": True, "rngs": {"drop_path": jax.random.key(0)}},
        "decoder": {"task": "panoptic", "train": True},
    }
    inputs = clip.images
    for before in list(PARTS)[: list(PARTS).index(row)]:
        inputs = jax.eval_shape(functools.partial(model.apply, method=PARTS[before]), variables, inputs)
    inputs = inputs if row == "backbone" else noise(inputs)
    return functools.partial(model.apply, method=PARTS[row], **how.get(row, {})), (variables, inputs)


def noise(shapes):
    """Normal numbers for a tree of shapes."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape, np.float32), shapes)


@functools.cache
def swin_t(remat: bool):
    """Model of the published sizes, first variables, a clip with twelve objects."""
    import jax

    from benchmarks.gpu_models import example_clip
    from vps_jax import config, models

    model = models.build(dataclasses.asdict(config.Tarvis(backbone="swin_tiny", remat=remat, dtype="float32")))
    frames, height, width = CLIP
    variables = jax.jit(lambda: models.init(model, jax.random.key(0), (64, 64)))()
    return model, variables, example_clip(1, frames, height, width, 124)


def points():
    """The choice of 12,544 points in every map, and 24 maps with random uncertainty."""
    import jax
    import numpy as np

    from vps_jax.ops import sampling

    shapes = ((24, 37632), (24, 37632, 2), (24, 3136, 2))
    uncertainty, drawn, fresh = noise([jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes])
    return sampling.most_uncertain, (-abs(uncertainty), drawn, fresh)


def finest():
    """The neck's mask features as a function of variables, the backbone's finest map and the neck's."""
    import jax
    import numpy as np
    from flax import linen as nn

    from vps_jax.models.temporal_neck import TemporalNeck

    class Finest(TemporalNeck):
        @nn.compact
        def __call__(self, *maps):
            return self.mask_features(*maps)

    frames, height, width = CLIP
    shapes = (1, frames, height // 4, width // 4, 96), (1, frames, height // 8, width // 8, 256)
    maps = noise([jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes])
    variables = noise(jax.eval_shape(lambda: Finest().init(jax.random.key(0), *maps)))
    return Finest().apply, (variables, *maps)


def losses():
    """The panoptic loss of ten prediction sets as a function of mask features, queries and class logits, and those."""
    import jax
    import numpy as np

    from benchmarks.gpu_models import example_clip
    from vps_jax.tasks import make_task
    from vps_jax.types import QueryOutputs

    task = make_task("panoptic", num_classes=124)
    frames, height, width = CLIP
    clip = example_clip(1, frames, height, width, 124)._replace(images=None)
    rng = np.random.default_rng(0)
    features = 0.1 * rng.standard_normal((1, frames, height // 4, width // 4, 256), np.float32)
    queries = {"instance": 128, "background": 1, "semantic": 124}
    embeds = {name: rng.standard_normal((10, 1, q, 256), np.float32) for name, q in queries.items()}
    logits = rng.standard_normal((10, 1, 128, 125), np.float32)

    def loss(features, embeds, logits):
        outputs = QueryOutputs(features, embeds, logits, None)
        return task.loss(outputs, task.make_targets(clip), jax.random.key(1))[0]

    return loss, (features, embeds, logits)


def step_program(row: str, remat: bool):
    """A function that compiles the lowered step of `train.step`, and the step's arguments."""
    import jax

    from benchmarks.gpu_models import example_clip
    from configs import tiny
    from vps_jax import config, models
    from vps_jax.tasks import make_task
    from vps_jax.train.optimizer import make_optimizer
    from vps_jax.train.sharding import make_mesh, put_batch, state_sharding
    from vps_jax.train.state import create_state
    from vps_jax.train.step import StepOptions

    if row == "step":
        model, variables, clip = swin_t(remat)
        task, optim = make_task("panoptic", num_classes=124), dataclasses.asdict(config.Optim())
    else:
        settings = config.experiment(tiny.get_config())
        model = models.build(settings.model)
        variables = jax.jit(lambda: models.init(model, jax.random.key(0), (64, 64)))()
        clip = example_clip(TINY_BATCH, settings.data.clip_frames, 64, 128, 124, rows=8)
        task, optim = make_task("panoptic", settings.tasks["panoptic"], num_classes=124), settings.optim
    tx = make_optimizer(optim, variables["params"])
    state, mesh = create_state(variables, tx), make_mesh(devices=jax.devices()[:1])
    shardings = state_sharding(mesh, state)
    step = whole_step(model, task, tx, shardings, StepOptions(0, 0.999))
    state = jax.tree.map(lambda a: jax.numpy.array(a, copy=True), state)  # the step takes it for itself
    arguments = jax.device_put(state, shardings), put_batch(mesh, clip)
    return lowered_step(step, *arguments), arguments


def whole_step(model, task, tx, shardings, options):
    """The step of this checkout, or of one from before the update was a program of its own."""
    from vps_jax.train import step

    if not hasattr(step, "make_update"):
        return step.make_step(model, task, "VIPSEG", tx=tx, shardings=shardings, options=options)
    update = step.make_update(tx, shardings, options)
    return step.make_step(model, task, "VIPSEG", update, shardings=shardings, options=options)


def lowered_step(step, state, clip):
    """A function that compiles a step and gives the function of (state, clip)."""
    if isinstance(step, functools.partial):
        lowered = step.func.lower(*step.args, state, clip)
        return lambda: functools.partial(lowered.compile(), *step.args)
    halves = [half.lower() for half in step.trace(state, clip).halves]
    return lambda: type(step)(step.seed, *(half.compile() for half in halves))


# ---- the process that compares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=pathlib.Path, help="an older checkout to compare with")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="rows to measure")
    parser.add_argument("--remat", action="store_true", help="recompute the inside of layers, as large models do")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.remat)
        return
    folders = {"new": FOLDER} | ({"before": args.before.resolve()} if args.before else {})
    checkouts = {name: Checkout(folder, __file__, *["--remat"] * args.remat) for name, folder in folders.items()}
    for row in args.only:
        compiling = {name: checkout.ask(f"make {row}") for name, checkout in checkouts.items()}
        times = {name: [] for name in checkouts}
        for _ in range(args.repeats):
            for name, checkout in checkouts.items():
                times[name].append(checkout.ask(f"run {row}"))
        for program in compiling["new"]:
            medians = {
                name: [statistics.median(run[program][i] for run in runs) for i in (0, 1)]
                for name, runs in times.items()
            }
            print(
                line(row, program, medians, {name: found[program][0] for name, found in compiling.items()}), flush=True
            )


def line(row: str, program: str, medians: dict, compiling: dict) -> str:
    cpu, clock = medians["new"]
    text = (
        f"{row:9s} {program:14s} CPU {cpu:7.3f} s, clock {clock:7.3f} s, compiled in {compiling['new']:5.1f} s of CPU"
    )
    if "before" in medians:
        old_cpu, old_clock = medians["before"]
        text += f"; before {old_cpu:7.3f}, {old_clock:7.3f}, {compiling['before']:5.1f}"
        ratios = cpu / old_cpu, clock / old_clock, compiling["new"] / compiling["before"]
        text += "; ratios {:.2f}, {:.2f}, {:.2f}".format(*ratios)
    return text


if __name__ == "__main__":
    main()
