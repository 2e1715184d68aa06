"""The first steps of stored training runs in float64, in a process of its own: `jnp.float32` is float64 here.

    python float64_training.py FOLDER OUTPUT PREFIX:STEPS[:MISTAKE] ...

Every run goes into a file of its name in the folder OUTPUT.

Our code names float32 where computations must not be in bfloat16. Another name for it, before anything else is
imported, makes every number a float64.
"""

import atexit
import contextlib
import gc
import pathlib
import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64
gc.disable()  # the process ends before its garbage matters
atexit.register(gc.freeze)  # nor does it at the end
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "golden")]

import golden_files  # noqa: E402
import numpy as np  # noqa: E402
import tarvis_training  # noqa: E402


def main(folder: str, output: str, *runs: str) -> None:
    folder = pathlib.Path(folder)
    manifest, arrays = golden_files.load(folder, tarvis_training.CASE, whole=True)
    with tarvis_training.one_gradient_program() if len(runs) > 1 else contextlib.nullcontext():
        for run in runs:
            prefix, steps, *mistake = run.split(":")
            made = tarvis_training.recipe(manifest, arrays, prefix)
            for name in mistake:
                made = tarvis_training.MISTAKES[name](made)
            found = tarvis_training.run(folder, made, int(steps), whole=True)
            np.savez(pathlib.Path(output, f"{run}.npz"), **found)
            print(run, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
