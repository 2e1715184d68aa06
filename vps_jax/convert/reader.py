"""Read the weights of any common checkpoint file into numpy, without torch and without running anything in the file.

The kind of a file is told by its content: PyTorch's zip format and the one before it (`.pth`), a plain pickle (`.pkl`,
as detectron2 and Mask2Former ship Swin), `.npz` and `.safetensors`.
"""

import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import safetensors

from vps_jax.convert import pickles
from vps_jax.types import UserError

NESTED = ("model", "state_dict", "model_state_dict", "module")  # where a training checkpoint keeps its weights
SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": pickles.BFLOAT16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
DAMAGED = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    struct.error,
    safetensors.SafetensorError,
    *(EOFError, KeyError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError),
    RecursionError,
)


def read_checkpoint(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Weights of a checkpoint file.

    Args:
      path: `.pth`, `.pt`, `.pkl`, `.npz` or `.safetensors`, of any nesting (`{'model': ...}`, `{'state_dict': ...}`).

    Returns:
      Published name -> array; a `module.` that all names begin with is taken off. bfloat16 is widened to float32.

    Raises:
      UserError: no such file, not a checkpoint, a web page, cut short or damaged, values that are not finite, a pickle
        that names anything but tensors, plain containers and numbers.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} is not a file; give the path of a .pth, .pkl, .npz or .safetensors file")
    with path.open("rb") as file:
        try:
            arrays = _weights(_load(file, path))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except DAMAGED as error:
            raise UserError(
                f"checkpoint {path} ({path.stat().st_size} bytes) is cut short, damaged or of another kind: {error}; "
                "compare its size with the published one and fetch it again"
            ) from error
    check_finite(arrays, str(path))
    return arrays


def check_finite(arrays: Mapping[str, np.ndarray], what: str) -> None:
    """Raises UserError that names the first array with a NaN or an infinity."""
    bad = [key for key, a in arrays.items() if a.dtype.kind in "fc" and not np.isfinite(a).all()]
    if bad:
        count = int((~np.isfinite(arrays[bad[0]])).sum())
        raise UserError(
            f"{what}: {bad[0]} holds {count} values that are not finite ({len(bad)} such arrays); "
            "the training that wrote it had diverged, take an earlier checkpoint"
        )


def _load(file: BinaryIO, path: pathlib.Path) -> Any:
    head = file.read(16)
    file.seek(0)
    if head[:2] == b"PK":
        return _load_zip(file)
    if head[8:9] == b"{":
        return _load_safetensors(file)
    if head.lstrip()[:1] == b"<":  # after safetensors, the length of whose header may begin so
        raise UserError("a web page and no weights; its site may ask for a log-in or a click: fetch the file by hand")
    if head[:1] != b"\x80":
        raise ValueError("neither a PyTorch, pickle, npz nor safetensors file")
    return pickles.load(file)


def _load_zip(file: BinaryIO) -> Any:
    archive = zipfile.ZipFile(file)
    pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if not pickled:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    root = pickled[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise UserError("written on a big-endian machine, which is not supported; save it again on another")

    def storage(pid) -> pickles.Storage:
        _, dtype, key, _, count, *_ = pid
        return pickles.Storage(str(dtype), count, lambda: archive.read(f"{root}data/{key}"))

    return pickles.Reader(io.BytesIO(archive.read(pickled[0])), storage).load()


def _load_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    """The library refuses entries that overlap, leave holes, reach out of the file or contradict their shape."""
    arrays = {}
    for name, entry in safetensors.deserialize(file.read()):
        dtype = SAFETENSORS[entry["dtype"]]
        values = np.frombuffer(entry["data"], "<u2" if dtype == pickles.BFLOAT16 else dtype)
        arrays[name] = pickles.widen(values, dtype).reshape(entry["shape"])
    return arrays


def _weights(root: Any) -> dict[str, np.ndarray]:
    """The mapping that holds the weights, its tensors read."""
    while isinstance(root, Mapping):
        nested = next((root[key] for key in NESTED if isinstance(root.get(key), Mapping)), None)
        if nested is None:
            break
        root = nested
    kinds = (pickles.Tensor, np.ndarray, pickles.NumpyArray)
    named = {key: a for key, a in root.items() if isinstance(a, kinds)} if isinstance(root, Mapping) else {}
    if not named:
        raise UserError(f"no weights found; expected a state dict, plain or under one of {', '.join(NESTED)}")
    prefix = "module." if all(str(key).startswith("module.") for key in named) else ""
    return {str(key).removeprefix(prefix): a if isinstance(a, np.ndarray) else a.array() for key, a in named.items()}
