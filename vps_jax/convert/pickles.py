"""Pickle files without running anything in them: tensors, numpy arrays, plain containers and numbers are admitted.

A pickle is a program that may call whatever it names. Here every name is looked up in the table below, which leads to
inert stand-ins of our own; any other name is refused. Tensors stay descriptions until `Tensor.array` reads them, so the
optimizer state of a training checkpoint is never loaded.
"""

import collections
import datetime
import io
import math
import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vps_jax.types import UserError

BFLOAT16 = "bfloat16"  # numpy has no such dtype; read as float32
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


class Storage(NamedTuple):
    """Raw numbers somewhere in a file: numpy dtype name, how many, and a function that reads their bytes."""

    dtype: str
    count: int
    read: Callable[[], bytes]

    def array(self) -> np.ndarray:
        raw, dtype = self.read(), np.dtype("<u2" if self.dtype == BFLOAT16 else self.dtype)
        if len(raw) < self.count * dtype.itemsize:
            raise EOFError(f"a tensor ends after {len(raw)} of {self.count * dtype.itemsize} bytes")
        return widen(np.frombuffer(raw, dtype, self.count), self.dtype)


class Tensor(NamedTuple):
    """A strided view of a storage; sizes in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A contiguous copy. Raises ValueError when the view reaches out of its storage."""
        count = math.prod(self.shape)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        bounds = (self.offset, *self.shape, *self.strides)
        if min(bounds) < 0 or count > self.storage.count or (count and last >= self.storage.count):
            raise ValueError(f"a tensor of shape {self.shape} reaches out of its storage of {self.storage.count}")
        values = self.storage.array()
        if not count:
            return np.empty(self.shape, values.dtype)
        steps = [s * values.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps).copy()


def widen(values: np.ndarray, dtype: str) -> np.ndarray:
    """bfloat16 bit patterns to float32; anything else as it is."""
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == BFLOAT16 else values


class _Dtype:
    """Stand-in for `numpy.dtype`: plain numbers only."""

    def __init__(self, spec, *_):
        self.dtype = np.dtype(spec) if isinstance(spec, str) else None
        if self.dtype is None or self.dtype.kind not in "fiub":
            raise UserError(f"the checkpoint holds an array of {spec!r}; only numbers are read")

    def __setstate__(self, state):
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """Stand-in for `numpy.ndarray`, filled by the pickle's state: (version, shape, dtype, fortran order, bytes)."""

    def __init__(self, *_):
        self.values = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        self.values = np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if fortran else "C")

    def array(self) -> np.ndarray:
        if self.values is None:
            raise ValueError("an array without values")
        return np.array(self.values, self.values.dtype.newbyteorder("="), order="C")


class _Name(str):
    """Stand-in for a dtype, device or class that only describes; calling it gives it back."""

    __slots__ = ()

    def __call__(self, *_):
        return self


class _Call(NamedTuple):
    """Stand-in for a function. A tuple, so that a pickle cannot set attributes on it and change it for other files."""

    function: Callable

    def __call__(self, *args):
        return self.function(*args)


def _rebuild_tensor(storage, offset, shape, strides, *_):
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_from_type(function, _cls, args, _state):
    return function(*args)


def _numpy_scalar(dtype, raw):
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype.dtype)[0]


def _numpy_buffer(raw, dtype, shape, order):
    array = NumpyArray()
    array.__setstate__((1, shape, dtype, order == "F", bytes(raw)))
    return array


def _latin1(text, encoding="latin1"):
    if encoding != "latin1":
        raise UserError(f"the checkpoint asks for the encoding {encoding!r}; only latin1 occurs in arrays")
    return text.encode("latin1")


def _empty_bytes():
    return b""


def _load_nested(raw):
    return load(io.BytesIO(raw))


# values are immutable on purpose: built-in types, names and calls
ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "deque"): collections.deque,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timedelta"): datetime.timedelta,
    ("_codecs", "encode"): _Call(_latin1),
    ("torch._utils", "_rebuild_tensor"): _Call(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(lambda data, *_: data),
    ("torch._utils", "_rebuild_parameter_with_state"): _Call(lambda data, *_: data),
    ("torch._tensor", "_rebuild_from_type_v2"): _Call(_rebuild_from_type),
    ("torch.nn.parameter", "Parameter"): _Name("Parameter"),
    ("torch", "Tensor"): _Name("Tensor"),
    ("torch", "Size"): tuple,
    ("torch", "device"): _Name("device"),
    ("torch.storage", "_load_from_bytes"): _Call(_load_nested),
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Call(_Dtype),
}
ADMITTED |= {("torch", name): _Name(dtype) for name, dtype in STORAGES.items()}
ADMITTED |= {("torch", name): _Name(name) for name in TORCH_DTYPES}
for _module in ("builtins", "__builtin__"):
    ADMITTED[_module, "bytes"] = _Call(_empty_bytes)
    ADMITTED |= {(_module, t.__name__): t for t in (set, frozenset, list, dict, tuple, int, float, bool, str, complex)}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ADMITTED[_module, "_reconstruct"] = _Call(NumpyArray)
    ADMITTED[_module, "scalar"] = _Call(_numpy_scalar)
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    ADMITTED[_module, "_frombuffer"] = _Call(_numpy_buffer)


class Reader(pickle.Unpickler):
    """An unpickler that knows the names above and no others."""

    def __init__(self, file: BinaryIO, storage: Callable[[tuple], Storage] | None = None):
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str):
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise UserError(
                f"the checkpoint names {module}.{name}, which is neither a tensor, a plain container nor a number; "
                "nothing was run and nothing read. Use a file that holds weights only"
            ) from None

    def persistent_load(self, pid):
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise UserError("the checkpoint refers to storage outside of itself; use a file that holds weights only")
        return self._storage(pid)


def load(file: BinaryIO) -> Any:
    """The object of a plain pickle, or of a PyTorch file from before the zip format.

    The latter is a row of pickles (a magic number, protocol version, sizes of int and long, the object, the storage
    keys) and the raw storages.
    """
    root = Reader(file).load()
    if not (isinstance(root, int) and root == LEGACY_MAGIC):
        return root
    Reader(file).load()  # protocol version
    Reader(file).load()  # the writer's sizes of int and long
    types, places = {}, {}  # key -> dtype name; key -> (first byte, number of bytes)

    def storage(pid) -> Storage:
        _, dtype, key, _, count, *view = pid
        types[key] = np.dtype("<u2" if dtype == BFLOAT16 else str(dtype))
        start = view[0][1] * types[key].itemsize if view and view[0] else 0
        return Storage(str(dtype), count, lambda: _read(file, places[key][0] + start, places[key][1] - start))

    root = Reader(file, storage).load()
    for key in Reader(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        places[key] = file.tell(), count * types[key].itemsize
        file.seek(places[key][1], io.SEEK_CUR)
    return root


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)
