"""Everything that a short session on a GPU should measure, in order of worth; a cut loses nothing that was measured.

  python benchmarks/gpu.py --output runs/gpu          # ten minutes of one card
  python benchmarks/gpu.py --rows card,matching       # some rows
  python benchmarks/gpu.py --toy                      # every row at toy size, on any machine

After every row it writes `gpu.json` and `gpu.md` into the folder. A row that fails says why, and the others go on; rows
that the time does not reach are named. Needs jax, flax and optax; torch for its two baselines.
"""

import argparse
import datetime
import functools
import json
import math
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# the step that is profiled is one that was timed
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))

from benchmarks import gpu_models, gpu_operations, gpu_profile, gpu_timing  # noqa: E402
from benchmarks.gpu_sizes import FULL, TOY, Sizes  # noqa: E402

Rows = Mapping[str, Callable[[Sizes], dict]]


def rows_of(sizes: Sizes) -> Rows:
    """The rows by name, in order of worth: what must be known first, what the goals speak of, the rest."""
    steps = {
        f"step of {backbone}, {batch} x {sizes.frames} x {height} x {width}": functools.partial(
            gpu_models.step, backbone=backbone, height=height, width=width, batch=batch
        )
        for backbone, height, width, batch in sizes.steps
    }
    first, *others = steps
    return {
        "card": gpu_timing.card,
        "scatter-add": gpu_operations.scatter_add,
        "golden numbers": gpu_models.golden_numbers,
        first: steps[first],
        "inference": gpu_models.inference,
        "deformable attention": gpu_operations.deformable,
        "profile": gpu_profile.profile,
        **{name: steps[name] for name in others[:3]},
        "cross-attention": gpu_operations.cross_attention,
        "matching": gpu_operations.matching,
        "losses": gpu_operations.losses,
        **{name: steps[name] for name in others[3:]},
    }


def session(rows: Rows, sizes: Sizes, output: pathlib.Path, deadline: float) -> dict[str, dict]:
    """Run the rows until the deadline (of `time.monotonic`) and write the results after each."""
    output.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {}
    for name, row in rows.items():
        if time.monotonic() > deadline:
            results[name] = {"not run": "the time was up"}
            continue
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        try:
            results[name] = row(sizes)
        except Exception as error:  # out of memory, or not supported here: the next row may well run
            traceback.print_exc()
            results[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        results[name]["row_s"] = time.monotonic() - start
        write(results, output)
        print("\n".join(lines(results[name])), flush=True)
    write(results, output)
    return results


def write(results: Mapping[str, dict], output: pathlib.Path) -> None:
    """`gpu.json` and `gpu.md`, each put in place whole."""
    day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = [f"# GPU session, {day}", ""]
    for name, found in results.items():
        page += [f"## {name}", "", *lines(found), ""]
    texts = {"gpu.json": json.dumps({"date": day, "rows": results}, indent=1), "gpu.md": "\n".join(page)}
    for name, text in texts.items():
        part = output / f"{name}.part"
        part.write_text(text)
        part.replace(output / name)


def lines(found: Mapping[str, Any]) -> list[str]:
    """A list item for every number, groups of numbers on one line."""
    return [f"- {name}: {told(value)}" for name, value in found.items()]


def told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {told(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/gpu"))
    parser.add_argument("--toy", action="store_true", help="every row at toy size")
    parser.add_argument("--rows", default="", help="names or beginnings of names, with commas between; default all")
    parser.add_argument("--minutes", type=float, default=10.0, help="no row begins later than this")
    args = parser.parse_args(arguments)
    sizes = TOY if args.toy else FULL
    wanted = tuple(name.strip() for name in args.rows.split(",") if name.strip())
    rows = {name: row for name, row in rows_of(sizes).items() if not wanted or name.startswith(wanted)}
    if not rows:
        parser.error(f"--rows {args.rows}: no such row; expected some of {', '.join(rows_of(sizes))}")
    if args.toy:  # what is compiled runs once or twice
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    deadline = math.inf if args.toy else time.monotonic() + 60 * args.minutes
    results = session(rows, sizes, args.output, deadline)
    print(f"written to {args.output / 'gpu.md'}")
    return 1 if any("error" in found for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
