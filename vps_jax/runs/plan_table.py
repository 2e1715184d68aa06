"""`--mode plan`: the count of a run (train/plan.py) as one table, and what to change where it does not fit."""

import pathlib
import shutil

import jax

from vps_jax.config import Experiment
from vps_jax.runs import own_experiment
from vps_jax.runs.experiment import check
from vps_jax.train import accelerators
from vps_jax.train.accelerators import REACHED, Gpu
from vps_jax.train.checkpoint import most_checkpoints
from vps_jax.train.plan import ASSUMED_FRAME, Memory, Plan, make_plan
from vps_jax.train.sharding import check_batch
from vps_jax.types import UserError

GIB = 2**30
DEFAULT_GPU = "a100"
DEFAULT_SHARE = 0.75  # of a GPU's memory that jax takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
USABLE_SHARE = 0.95
ROWS = {
    "parameters": "parameters",
    "optimizer": "optimizer state",
    "average": "EMA weights",
    "batch": "batch",
    "gathered": "gathered parameters",
    "accumulated": "accumulated gradients",
    "kept": "kept activations",
    "temporary": "largest temporary",
}


def plan_text(config: Experiment, workdir, *, gpu: str | None = None, devices: int | None = None) -> str:
    """What `main.py --mode plan` prints.

    Args:
      config: the experiment.
      workdir: folder of the run; nothing is written there.
      gpu: name of the GPU, see `train.accelerators`; None for `a100`.
      devices: over which the batch is split, which need not be here; None for those of this machine.

    Raises:
      UserError: an unknown GPU, or settings that do not fit.
    """
    name = gpu or DEFAULT_GPU
    card = accelerators.gpu(name)
    if devices:
        jax.config.update("jax_platforms", "cpu")  # takes no memory of a GPU that is here
    config = own_experiment.filled(config)
    check(config)
    plan = make_plan(config, devices or jax.device_count())
    parts = [heading(plan, name, card), *memory_table(plan), *fit(plan, name, card), *times(plan, name, card)]
    return "\n".join([*parts, disk(plan, workdir)])


def heading(plan: Plan, name: str, card: Gpu) -> str:
    """What the plan is of."""
    train, data = plan.experiment.train, plan.experiment.data
    micro = f" x {train.accumulate} micro-batches" if train.accumulate > 1 else ""
    lines = [
        f"{plan.experiment.name}: {train.steps:,} steps of {train.batch_size} clips of {data.clip_frames} frames on "
        f"{plan.devices} x {name} ({card.memory / 1e9:.0f} GB), {plan.clips} clip(s) per device{micro}"
    ]
    if plan.assumed:
        size = "x".join(map(str, ASSUMED_FRAME))
        lines.append(f"not prepared here, frames of {size} assumed: {', '.join(plan.assumed)}")
    return "\n".join(lines)


def memory_table(plan: Plan) -> list[str]:
    """GiB on one device, a column for each task."""
    columns = [f"{row.task} {row.shape.size[0]}x{row.shape.size[1]}" for row in plan.tasks]
    width = max(12, *map(len, columns)) + 2
    lines = ["", f"{'GiB per device':<24}" + "".join(f"{column:>{width}}" for column in columns)]
    for field, label in ROWS.items():
        values = [getattr(row.memory, field) / GIB for row in plan.tasks]
        if any(values):
            lines.append(f"  {label:<22}" + "".join(f"{value:>{width}.2f}" for value in values))
    totals = [row.memory.total / GIB for row in plan.tasks]
    return [*lines, f"  {'total':<22}" + "".join(f"{value:>{width}.2f}" for value in totals)]


def fit(plan: Plan, name: str, card: Gpu) -> list[str]:
    """Whether the largest task fits, and what to change."""
    most = max((row.memory for row in plan.tasks), key=lambda memory: memory.total)
    share = most.total / card.memory
    if share <= DEFAULT_SHARE:
        return ["", f"fits: {share:.0%} of the memory of {name}"]
    if share <= USABLE_SHARE:
        return [
            "",
            f"fits: {share:.0%} of the memory of {name}; set XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE_SHARE}, since jax "
            f"takes {DEFAULT_SHARE:.0%} by default",
        ]
    changes = [f"  {line}" for line in advice(plan, most, USABLE_SHARE * card.memory)]
    return ["", f"does not fit: {share:.0%} of the memory of {name}; what helps:", *changes]


def advice(plan: Plan, memory: Memory, room: float) -> list[str]:
    """What to change in the config, with the memory that it would leave, in the order of what costs least."""
    model, train = plan.experiment.model, plan.experiment.train
    lines = []
    if not getattr(model, "remat", True):
        lines.append("model.remat=True: activations are computed again in the backward pass, a third more arithmetic")
    if model.dtype == "float32":
        lines.append("model.dtype=bfloat16: about half of the activations")
    if train.fsdp == 1 and plan.devices > 1:
        state = memory.parameters + memory.optimizer + memory.average
        saved = state * (1 - 1 / plan.devices) - memory.parameters  # a step still gathers the parameters
        lines.append(f"train.fsdp={plan.devices}: about {(memory.total - saved) / GIB:.1f} GiB")
    for accumulate in divisors(train.batch_size):
        if accumulate > train.accumulate and is_possible(plan, accumulate):
            total = accumulated_total(memory, accumulate / train.accumulate)
            lines.append(f"train.accumulate={accumulate}: about {total / GIB:.1f} GiB, the same batch, less at once")
            if total <= room:
                break
    return [*lines, "smaller clips: data.clip_frames, or short_side of the sources; or more devices"]


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def is_possible(plan: Plan, accumulate: int) -> bool:
    """Whether the batch can be split into so many micro-batches on these devices."""
    try:
        check_batch(plan.experiment.train.batch_size, accumulate, plan.devices)
    except UserError:
        return False
    return True


def accumulated_total(memory: Memory, times_less: float) -> float:
    """Bytes if a device has that many times fewer clips at once: activations go down, a sum of gradients comes."""
    activations = (memory.kept + memory.temporary) / times_less
    gradients = max(memory.accumulated, memory.parameters + memory.gathered)
    return memory.total - memory.accumulated - memory.kept - memory.temporary + activations + gradients


def times(plan: Plan, name: str, card: Gpu) -> list[str]:
    """Arithmetic and the least time."""
    seconds = card.seconds(plan.flop)
    steps = plan.experiment.train.steps
    shares = ", ".join(f"{value / 1e12:.1f} {dtype}" for dtype, value in sorted(plan.flop.items()))
    return [
        f"arithmetic: {sum(plan.flop.values()) / 1e12:.1f} TFLOP per step and device ({shares})",
        f"time at least: {1000 * seconds:.0f} ms a step, {steps * seconds / 3600:.1f} hours for {steps:,} steps at "
        f"{REACHED:.0%} of the peak of {name}; expect twice as long",
    ]


def disk(plan: Plan, workdir) -> str:
    """What the checkpoints need, and what is free."""
    count = most_checkpoints(plan.experiment.train.keep_checkpoints)
    folder = pathlib.Path(workdir).absolute()
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    needed, free = count * plan.checkpoint, shutil.disk_usage(place).free
    short = "" if needed <= free else "; make room, lower train.keep_checkpoints or take another --workdir"
    return (
        f"disk: {count} checkpoints of {plan.checkpoint / 1e9:.2f} GB are {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB "
        f"are free at {place}{short}"
    )
