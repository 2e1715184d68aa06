"""Write a state dict that `torch.load(..., weights_only=True)` reads, without torch.

A `.pth` file is a zip archive: a pickle that describes the tensors, and one file of raw numbers per tensor. The pickle
is written opcode by opcode, because Python's own pickler would have to import torch to name its functions.
"""

import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from vps_jax.types import UserError

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def save_torch(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `{'model': state dict}` as PyTorch does; the file appears whole or not at all.

    Args:
      path: new `.pth` file.
      arrays: published name -> array, as `to_arrays` gives.

    Raises:
      UserError: the file exists or cannot be written, or a dtype that torch does not know.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise UserError(f"{path} exists; choose a new file")
    arrays = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    unknown = {key: str(a.dtype) for key, a in arrays.items() if str(a.dtype) not in STORAGES}
    if unknown:
        raise UserError(f"arrays of these types cannot be written: {unknown}; expected one of {', '.join(STORAGES)}")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", describe(arrays))
            archive.writestr("archive/byteorder", b"little")
            for i, value in enumerate(arrays.values()):
                archive.writestr(f"archive/data/{i}", value.astype(value.dtype.newbyteorder("<")).tobytes())
            archive.writestr("archive/version", b"3\n")
        os.replace(draft, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); choose another place") from error
    finally:
        draft.unlink(missing_ok=True)


def describe(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of `{'model': {name: tensor}}`, tensor i in file `data/i`."""
    entries = b"".join(text(key) + tensor(i, a) for i, (key, a) in enumerate(arrays.items()))
    state = pickle.EMPTY_DICT + pickle.MARK + entries + pickle.SETITEMS
    model = pickle.EMPTY_DICT + pickle.MARK + text("model") + state + pickle.SETITEMS
    return pickle.PROTO + b"\x02" + model + pickle.STOP


def tensor(number: int, array: np.ndarray) -> bytes:
    """A call of torch's `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    strides = [s // array.itemsize for s in array.strides]
    storage = [text("storage"), name("torch", STORAGES[str(array.dtype)]), text(str(number)), text("cpu")]
    hooks = name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = [
        several([*storage, number_of(array.size)]) + pickle.BINPERSID,
        number_of(0),
        several([number_of(n) for n in array.shape]),
        several([number_of(n) for n in strides]),
        pickle.NEWFALSE,
        hooks,
    ]
    return name("torch._utils", "_rebuild_tensor_v2") + several(arguments) + pickle.REDUCE


def name(module: str, attribute: str) -> bytes:
    """A global by name; the file only names it, nothing is imported."""
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    """A string of up to 4 GiB."""
    raw = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(raw)) + raw


def number_of(value: int) -> bytes:
    """An integer of up to 63 bits: short form where it fits."""
    if value < 2**31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)


def several(items: list[bytes]) -> bytes:
    """A tuple of items that are pickled already."""
    return pickle.MARK + b"".join(items) + pickle.TUPLE
