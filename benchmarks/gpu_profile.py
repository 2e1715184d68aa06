"""Where a training step's time goes on the device, by the profiler's events and the names in the compiled program."""

import collections
import pathlib
import re
import tempfile

import jax

from benchmarks import gpu_models
from benchmarks.gpu_sizes import Sizes

# the first that an operation's name holds is its part; loss and optimizer are named by `gpu_models`
PARTS = ("losses", "optimizer", "backbone", "neck", "decoder", "heads", "queries")
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?[\s})]([\w\-]+)\(")
# these only hold other operations, whose own events are counted
HOLDERS = {"while", "call", "conditional"}
LARGEST = 12


def profile(sizes: Sizes) -> dict:
    """Share of the parts of the first step of `sizes.steps`, and its longest operations, of all time in operations."""
    program, state, clip, _ = gpu_models.train_program(sizes, *sizes.steps[0])
    parts = parts_of("\n".join(half.as_text() for half in program.halves))
    state, _ = jax.block_until_ready(program(state, clip))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(program(state, clip))
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        spent = operation_ns(jax.profiler.ProfileData.from_file(str(path)))
    counted = {name: ns for name, ns in spent.items() if parts.get(name) != "holder"}
    total = sum(counted.values())
    if not total:
        return {"error": "the profiler gave no operations of the program"}
    shares = collections.Counter()
    for name, ns in counted.items():
        shares[parts.get(name, "unnamed")] += ns / total
    longest = sorted(counted.items(), key=lambda item: -item[1])[:LARGEST]
    named = {f"{name} ({parts.get(name, 'unnamed')})": ns / total for name, ns in longest}
    return {"ms in operations": total / 1e6, "share": dict(shares.most_common()), "longest": named}


def parts_of(text: str) -> dict[str, str]:
    """Instruction name -> part of the model, from a compiled program's text; `holder` for loops and calls."""
    parts = {}
    for line in text.splitlines():
        match = INSTRUCTION.match(line)
        if match:
            name, kind, where = match[1], match[2], re.search(r'op_name="([^"]*)"', line)
            scope = where[1] if where else ""
            part = next((part for part in PARTS if re.search(rf"\b{part}\b", scope)), "other")
            parts[name] = "holder" if kind in HOLDERS else part
    return parts


def operation_ns(data) -> dict[str, float]:
    """Nanoseconds of every operation of compiled programs, by its name in the program."""
    spent = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name and not event.name.startswith("end: "):
                    spent[str(name)] += event.duration_ns
    return spent
