"""The first steps of a stored training run in float64, in a process of its own: `jnp.float32` is float64 here.

    python float64_training.py FOLDER PREFIX STEPS OUTPUT [MISTAKE]

Our code names float32 where computations must not be in bfloat16. Another name for it, before anything else is
imported, makes every number a float64.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "golden")]

import golden_files  # noqa: E402
import numpy as np  # noqa: E402
import tarvis_training  # noqa: E402


def main(folder: str, prefix: str, steps: str, output: str, mistake: str = "") -> None:
    folder = pathlib.Path(folder)
    manifest, arrays = golden_files.load(folder, tarvis_training.CASE, whole=True)
    made = tarvis_training.recipe(manifest, arrays, prefix)
    if mistake:
        made = tarvis_training.MISTAKES[mistake](made)
    np.savez(output, **tarvis_training.run(folder, made, int(steps), whole=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
