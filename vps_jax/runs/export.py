"""A checkpoint as a folder that runs without this package: StableHLO by `jax.export`, weights, and a runner."""

import importlib.metadata
import importlib.util
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vps_jax.files import fresh_folder, require_space, write_json
from vps_jax.runs import run_exported, segmenter
from vps_jax.types import UserError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Exported(NamedTuple):
    """What was written: shapes of the inputs and outputs by name, and bytes of the program and of the weights."""

    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    program: int
    weights: int


def export(
    checkpoint: pathlib.Path, output: pathlib.Path, *, size: str, platforms: Sequence[str] = ("cpu", "cuda"), **options
) -> Exported:
    """Write the network of a checkpoint for frames of one size.

    Args:
      checkpoint: see `vps_jax.load`.
      output: new folder; gets `program.bin`, `weights.npz`, `export.json`, `run.py`, and the first value of what is
        handed from call to call.
      size: of the videos, `1280x720`.
      platforms: kinds of devices that the program is made for.
      options: of `vps_jax.load`.

    Raises:
      UserError: no checkpoint, a size or platform that is none, no room, or `output` is there.
    """
    original = frame_size(size)
    check_platforms(platforms)
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("export needs flatbuffers, which is not installed; pip install 'vps-jax[export]'")
    loaded = segmenter.load(checkpoint, **options)
    model = loaded.experiment.model.name
    with fresh_folder(output) as folder:
        if not hasattr(loaded.predictor, "network"):
            raise UserError(
                f"{checkpoint}: predictors of the model {model} say nothing of export; add a method network"
            )
        network = loaded.predictor.network(original)
        names, leaves = flat(network.variables)
        require_space(folder, sum(leaf.nbytes for leaf in leaves), "the weights")
        program, inputs, outputs = make_program(network, leaves, platforms)
        (folder / "program.bin").write_bytes(program)
        np.savez(folder / "weights.npz", **dict(zip(names, leaves, strict=True)))
        for name in list(network.inputs)[1:]:
            np.save(folder / f"{name}.npy", np.asarray(network.inputs[name]))
        shutil.copyfile(run_exported.__file__, folder / "run.py")
        write_json(folder / "export.json", {
            "made_by": f"vps-jax {importlib.metadata.version('vps-jax')}, jax {importlib.metadata.version('jax')}",
            "model": model,
            "task": loaded.infer.task,
            "platforms": list(platforms),
            "video": list(original),
            "frames": network.about,
            "inputs": inputs,
            "outputs": {name: {**outputs[name], "meaning": network.outputs[name]} for name in outputs},
            "classes": loaded.classes.rows(),
            "weights": names,
        }, indent=1)  # fmt: skip
    shapes = [{name: tuple(row["shape"]) for name, row in rows.items()} for rows in (inputs, outputs)]
    return Exported(*shapes, len(program), sum(leaf.nbytes for leaf in leaves))


def frame_size(text: str) -> tuple[int, int]:
    """Height and width of `1280x720`.

    Raises:
      UserError: no such size.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise UserError(f"--size {text!r}: expected width and height of the videos in pixels, such as 1280x720")
    return int(match[2]), int(match[1])


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises UserError for a kind of device that jax does not know."""
    wrong = [name for name in platforms if name not in PLATFORMS]
    if wrong or not platforms:
        raise UserError(f"--platforms {','.join(platforms)}: expected some of {', '.join(PLATFORMS)}")


def flat(variables: Mapping) -> tuple[list[str], list[np.ndarray]]:
    """Paths `params/.../kernel` and arrays of a model's variables, in the order of its leaves."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return ["/".join(str(key.key) for key in path) for path, _ in leaves], [np.asarray(leaf) for _, leaf in leaves]


def make_program(network, leaves: Sequence[np.ndarray], platforms: Sequence[str]) -> tuple[bytes, dict, dict]:
    """The serialized program of (list of weights, *inputs), and shape and type of its inputs and outputs by name."""
    import jax
    import jax.export

    tree = jax.tree.structure(network.variables)

    def run(weights, *inputs):
        return network.function(jax.tree.unflatten(tree, weights), *inputs)

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in (*leaves, *network.inputs.values())]
    weights, inputs = shapes[: len(leaves)], shapes[len(leaves) :]
    exported = jax.export.export(jax.jit(run), platforms=platforms)(weights, *inputs)
    return (
        bytes(exported.serialize()),
        {name: described(one) for name, one in zip(network.inputs, inputs, strict=True)},
        {name: described(one) for name, one in zip(network.outputs, exported.out_avals, strict=True)},
    )


def described(one: Any) -> dict[str, Any]:
    """Shape and type of an array as json holds them."""
    return {"shape": list(one.shape), "dtype": np.dtype(one.dtype).name}
