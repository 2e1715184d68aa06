"""Run the model that `vps-jax export` wrote into this folder; needs jax and flatbuffers, and nothing else.

python run.py frames.npy scores.npz     # frames.npy: uint8 of the shape that export.json gives for `frames`
"""

import json
import pathlib
import sys

import jax
import numpy as np
from jax import export


def load(folder: pathlib.Path):
    """A function from the inputs that export.json names to a dictionary of the outputs that it names."""
    about = json.loads((folder / "export.json").read_text())
    program = export.deserialize(bytearray((folder / "program.bin").read_bytes()))
    arrays = np.load(folder / "weights.npz")
    weights = [jax.device_put(arrays[name]) for name in about["weights"]]
    first = {name: np.load(folder / f"{name}.npy") for name in list(about["inputs"])[1:]}
    run = jax.jit(program.call)

    def call(frames, **later):
        return dict(zip(about["outputs"], run(weights, frames, *{**first, **later}.values()), strict=True))

    return call


if __name__ == "__main__":
    scores = load(pathlib.Path(__file__).parent)(np.load(sys.argv[1]))
    np.savez(sys.argv[2], **{name: np.asarray(value) for name, value in scores.items()})
