"""Checkpoints are read without torch and without running anything in them; what is wrong with a file is named.

Files are made byte by byte with Python's own pickle and zipfile, in the layouts that torch.save writes.
"""

import collections
import io
import json
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest

from vps_jax.convert import pickles
from vps_jax.convert.reader import read_checkpoint
from vps_jax.convert.torch_writer import save_torch
from vps_jax.types import UserError

A = np.arange(12, dtype=np.float32).reshape(3, 4)
B = np.array([3, -1, 7], np.int64)


class Named:
    """Pickles as the global `module.name`, whether or not that can be imported."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a global, optionally followed by a state."""

    def __init__(self, function, args, state=None):
        self.function, self.args, self.state = function, args, state


class Stored:
    """Pickles as a persistent id."""

    def __init__(self, *pid):
        self.pid = pid


class Writer(pickle._Pickler):
    """Python's pure pickler, which can be taught the three above."""

    dispatch = dict(pickle._Pickler.dispatch)

    def persistent_id(self, value):
        return value.pid if isinstance(value, Stored) else None

    def save_named(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())

    def save_call(self, value):
        self.save(value.function)
        self.save(tuple(value.args))
        self.write(pickle.REDUCE)
        if value.state is not None:
            self.save(value.state)
            self.write(pickle.BUILD)

    dispatch[Named], dispatch[Call] = save_named, save_call


def dumps(value) -> bytes:
    out = io.BytesIO()
    Writer(out, protocol=2).dump(value)
    return out.getvalue()


def tensor(key, array, kind="FloatStorage", *, shape=None, strides=None, offset=0):
    """What torch.save pickles for a tensor whose storage is `key`."""
    array = np.asarray(array)
    storage = Stored("storage", Named("torch", kind), key, "cpu", array.size)
    shape = array.shape if shape is None else shape
    strides = [s // array.itemsize for s in array.strides] if strides is None else strides
    hooks = Call(Named("collections", "OrderedDict"), ())
    args = (storage, offset, tuple(shape), tuple(strides), False, hooks)
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), args)


def zip_file(path, root, storages, *, name="archive"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.pkl", dumps(root))
        for key, array in storages.items():
            archive.writestr(f"{name}/data/{key}", np.asarray(array).tobytes())
        archive.writestr(f"{name}/version", "3\n")
    return path


def legacy_bytes(root, storages) -> bytes:
    head = [dumps(pickles.LEGACY_MAGIC), dumps(1001), dumps({"little_endian": True, "type_sizes": {"int": 4}})]
    tail = [dumps(list(storages))]
    tail += [struct.pack("<q", np.size(a)) + np.asarray(a).tobytes() for a in storages.values()]
    return b"".join([*head, dumps(root), *tail])


def test_zip_format_with_views_and_leftovers(tmp_path):
    weights = collections.OrderedDict(
        a=tensor("0", A),
        rows=tensor("0", A, shape=(2, 2), strides=(4, 1), offset=5),
        turned=tensor("0", A, shape=(4, 3), strides=(1, 4)),
        b=tensor("1", B, "LongStorage"),
        name="not a tensor",
    )
    root = {"model": weights, "optimizer": {"lr": 1e-4, "moment": tensor("2", A)}, "epoch": 3}
    read = read_checkpoint(zip_file(tmp_path / "x.pth", root, {"0": A, "1": B}))  # storage 2 is never opened
    assert set(read) == {"a", "rows", "turned", "b"}
    np.testing.assert_array_equal(read["a"], A)
    np.testing.assert_array_equal(read["rows"], A[1:3, 1:3])
    np.testing.assert_array_equal(read["turned"], A.T)
    np.testing.assert_array_equal(read["b"], B)
    assert read["b"].dtype == np.int64 and read["turned"].flags.c_contiguous


def test_legacy_format(tmp_path):
    root = {"state_dict": {"module.a": tensor("77", A), "module.b": tensor("9", B, "LongStorage")}}
    (tmp_path / "x.pth").write_bytes(legacy_bytes(root, {"9": B, "77": A}))
    read = read_checkpoint(tmp_path / "x.pth")
    np.testing.assert_array_equal(read["a"], A)
    np.testing.assert_array_equal(read["b"], B)


def test_plain_pickle_with_tensors(tmp_path):
    """As Mask2Former ships Swin: each storage is a legacy file inside the pickle."""
    inner = legacy_bytes(Stored("storage", Named("torch", "FloatStorage"), "5", "cpu", A.size), {"5": A})
    storage = Call(Named("torch.storage", "_load_from_bytes"), (inner,))
    value = Call(Named("torch._utils", "_rebuild_tensor_v2"), (storage, 1, (2, 4), (4, 1), False, {}))
    (tmp_path / "x.pkl").write_bytes(dumps({"model": {"a": value}, "__author__": "x"}))
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "x.pkl")["a"], A.ravel()[1:9].reshape(2, 4))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_pickle_with_numpy(tmp_path, protocol):
    turned, scalar, big = A.T, np.float32(2.5), A.astype(">f4")
    whole = {"model": {"a": A, "turned": turned, "big": big, "zero": np.array(2.0)}, "iteration": scalar}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(whole, protocol=protocol))
    read = read_checkpoint(tmp_path / "x.pkl")
    np.testing.assert_array_equal(read["a"], A)
    np.testing.assert_array_equal(read["turned"], A.T)
    np.testing.assert_array_equal(read["big"], A)
    assert read["zero"].shape == () and read["big"].dtype == np.float32


def test_half_and_bfloat16(tmp_path):
    half = np.array([0.5, -2.0], np.float16)
    brain = np.array([0x3F80, 0xC000], np.uint16)  # 1.0 and -2.0
    root = {"h": tensor("0", half, "HalfStorage"), "b": tensor("1", brain, "BFloat16Storage")}
    read = read_checkpoint(zip_file(tmp_path / "x.pth", root, {"0": half, "1": brain}))
    np.testing.assert_array_equal(read["h"], half)
    np.testing.assert_array_equal(read["b"], np.float32([1.0, -2.0]))
    assert read["b"].dtype == np.float32


def safetensors_bytes(entries, raw: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + raw


def test_npz_and_safetensors(tmp_path):
    np.savez(tmp_path / "x.npz", a=A, b=B)
    entries = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "h": {"dtype": "BF16", "shape": [1], "data_offsets": [48, 50]},
    }
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(entries, A.tobytes() + b"\x80\x3f"))
    for name in ("x.npz", "x.safetensors"):
        np.testing.assert_array_equal(read_checkpoint(tmp_path / name)["a"], A)
    assert read_checkpoint(tmp_path / "x.safetensors")["h"].tolist() == [1.0]


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "entries",
    [
        {"a": entry([12], 0, 48), "b": entry([4], 32, 48)},  # one lies inside of the other
        {"a": entry([4], 0, 16), "b": entry([4], 32, 48)},  # bytes that nobody names
        {"a": entry([3, 5], 0, 48)},
        {"a": entry([12], 0, 48), "b": entry([4], 48, 64)},
        {"a": entry([12], 48, 0)},
        {"a": entry([2**62, 4], 0, 48)},
        {"a": entry([12], 0, 48, "F4_TOO")},
        {"a": entry([48], 0, 48, "F8_E4M3")},  # numpy has no such numbers
    ],
)
def test_a_safetensors_file_that_contradicts_itself_is_refused(tmp_path, entries):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(entries, A.tobytes()))
    with pytest.raises(UserError, match="is cut short, damaged or of another kind"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_a_header_longer_than_the_file_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{" + 50 * b" ")
    with pytest.raises(UserError, match="is cut short"):
        read_checkpoint(tmp_path / "x.safetensors")


HOSTILE = {
    "a shell command": Call(Named("os", "system"), ("touch {}",)),
    "builtin eval": Call(Named("builtins", "eval"), ("1",)),
    "an attribute of something admitted": Call(Named("collections", "OrderedDict.fromkeys"), ((),)),
    "a class by name": Named("argparse", "Namespace"),
}


@pytest.mark.parametrize("payload", HOSTILE)
@pytest.mark.parametrize("layout", ["zip", "legacy", "pkl"])
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(tmp_path, payload, layout):
    marker, path = tmp_path / "ran", tmp_path / "x.pth"
    call = HOSTILE[payload]
    if payload == "a shell command":
        call = Call(call.function, (f"touch {marker}",))
    root = {"model": {"a": tensor("0", A)}, "extra": call}
    if layout == "zip":
        zip_file(path, root, {"0": A})
    else:
        path.write_bytes(legacy_bytes(root, {"0": A}) if layout == "legacy" else dumps({"extra": call}))
    name = call if isinstance(call, Named) else call.function
    with pytest.raises(UserError, match=f"names {name.module}.{name.name}, which is neither"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_pickle_cannot_change_the_reader_for_the_next_file(tmp_path):
    """A state after a call may set attributes; on the stand-ins it cannot."""
    names = (("numpy", "dtype"), ("torch._utils", "_rebuild_tensor_v2"), ("torch", "FloatStorage"))
    for victim in (Named(*name) for name in names):
        out = io.BytesIO()
        writer = Writer(out, protocol=2)
        out.write(pickle.PROTO + b"\x02")
        writer.save(victim)
        writer.save(({}, {"function": 1, "array": 2}))
        out.write(pickle.BUILD + pickle.STOP)
        (tmp_path / "x.pkl").write_bytes(out.getvalue())
        with pytest.raises(UserError):
            read_checkpoint(tmp_path / "x.pkl")
    test_zip_format_with_views_and_leftovers(tmp_path)


def test_truncated_files_are_named(tmp_path):
    whole = zip_file(tmp_path / "whole.pth", {"a": tensor("0", A)}, {"0": A}).read_bytes()
    legacy = legacy_bytes({"a": tensor("0", A)}, {"0": A})
    entries = {"a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}
    safe, plain = safetensors_bytes(entries, A.tobytes()), pickle.dumps({"a": A})
    for raw in (whole, legacy, safe, plain):
        for keep in (len(raw) - 20, len(raw) // 2, 20, 0):
            path = tmp_path / "cut"
            path.write_bytes(raw[:keep])
            with pytest.raises(UserError, match=rf"{keep} bytes\) is cut short"):
                read_checkpoint(path)


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    for broken in (
        tensor("0", A, shape=(3, 5), strides=(4, 1)),
        tensor("0", A, offset=1),
        tensor("0", A, shape=(2,), strides=(-1,), offset=3),
        tensor("0", A, shape=(1000, 1000), strides=(0, 0)),
    ):
        with pytest.raises(UserError, match="out of its storage"):
            read_checkpoint(zip_file(tmp_path / "x.pth", {"a": broken}, {"0": A}))


def test_values_that_are_not_finite_are_refused(tmp_path):
    bad = A.copy()
    bad[1, 2] = np.nan
    with pytest.raises(UserError, match=r"layer.weight holds 1 values that are not finite"):
        read_checkpoint(zip_file(tmp_path / "x.pth", {"layer.weight": tensor("0", bad)}, {"0": bad}))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_checkpoint(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint at all\n")
    with pytest.raises(UserError, match="neither a PyTorch"):
        read_checkpoint(tmp_path / "text.pth")
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><title>Log in</title>")
    with pytest.raises(UserError, match=r"page\.pth: a web page and no weights"):
        read_checkpoint(tmp_path / "page.pth")
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(0x3C20)  # its length begins with b" <"
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + np.float32(2).tobytes())
    assert read_checkpoint(tmp_path / "x.safetensors")["a"] == 2
    with pytest.raises(UserError, match="no weights found"):
        read_checkpoint(zip_file(tmp_path / "x.pth", {"epoch": 3}, {}))
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "objects.npz")


def test_written_files_read_back_and_are_whole_or_absent(tmp_path):
    arrays = {"a": A, "turned": A.T, "b": B, "flag": np.array([True]), "scalar": np.float32(2), "none": A[:0]}
    save_torch(tmp_path / "x.pth", arrays)
    read = read_checkpoint(tmp_path / "x.pth")
    assert set(read) == set(arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(read[key], value)
        assert read[key].dtype == np.asarray(value).dtype and read[key].shape == np.shape(value)
    with pytest.raises(UserError, match="exists"):
        save_torch(tmp_path / "x.pth", arrays)
    with pytest.raises(UserError, match="complex64"):
        save_torch(tmp_path / "y.pth", {"c": np.zeros(2, np.complex64)})
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_torch_is_not_needed():
    assert "torch" not in sys.modules
