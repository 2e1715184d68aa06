"""Seeded damage to truth and result folders, for the fuzz test: json values, PNG bytes, files and folders."""

import copy
import json
import pathlib
import shutil

import cv2
import numpy as np
from PIL import Image

VALUES = (
    None, True, False, 0, 1, -1, 255, 1 << 24, 1 << 31, 1 << 63, 10**40, -0.5, 2.0, float("nan"), float("inf"), "", "x",
    "1", "../x", "a\0b", "\ud800", "é" * 200, [], {}, [None], {"id": 1}, [[[[]]]], "00000002", "0_v",
)  # fmt: skip
FILE_BYTES = (b"", b"\0", b"null", b"[" * 5000, b"\xff\xfe", b'{"annotations": [[]]}')


def paths_of(value, path=()):
    """Every place of a json value, itself first."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in entries:
        yield from paths_of(one, (*path, key))


def mutate_json(path: pathlib.Path, rng: np.random.Generator) -> str:
    """Change, remove, double or exchange one value of a json file."""
    content = json.loads(path.read_text())
    places = list(paths_of(content))[1:]
    if not places:
        return "nothing to change"
    place = places[rng.integers(len(places))]
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    kind = ("replace", "replace", "remove", "double", "copy from elsewhere")[rng.integers(5)]
    if kind == "replace":
        parent[place[-1]] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    elif kind == "remove":
        del parent[place[-1]]
    elif kind == "double" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[place[-1]]))
    else:
        other = content
        for key in places[rng.integers(len(places))]:
            other = other[key]
        parent[place[-1]] = copy.deepcopy(other)
    path.write_text(json.dumps(content))
    return f"{kind} {place} of {path.name}"


def mutate_bytes(path: pathlib.Path, rng: np.random.Generator) -> str:
    """Flip, cut, add or exchange bytes of a file."""
    data = bytearray(path.read_bytes())
    kind = ("flip", "flip", "cut", "append", "other file")[rng.integers(5)]
    if kind == "flip" and data:
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif kind == "cut" and data:
        del data[rng.integers(len(data)) :]
    elif kind == "append":
        data += bytes(rng.integers(0, 256, rng.integers(1, 40), np.uint8))
    else:
        data = bytearray(FILE_BYTES[rng.integers(len(FILE_BYTES))])
    path.write_bytes(data)
    return f"{kind} in {path.name}"


def mutate_pixels(path: pathlib.Path, rng: np.random.Generator) -> str:
    """Another value, size, depth or number of channels."""
    try:  # not by OpenCV, whose libpng prints about what an earlier mutation broke
        image = np.array(Image.open(path))
    except (OSError, SyntaxError):
        return "nothing to change"
    kind = ("pixel", "pixel", "size", "depth", "channels", "empty")[rng.integers(6)]
    if kind == "pixel":
        image.reshape(-1)[rng.integers(image.size)] = rng.integers(256)
    elif kind == "size":
        image = image[: max(1, image.shape[0] - 1)] if rng.random() < 0.5 else np.concatenate([image, image], axis=1)
    elif kind == "depth":
        image = image.astype(np.uint16)
    elif kind == "channels":
        image = image[..., 0] if image.ndim == 3 else np.repeat(image[..., None], 3 + rng.integers(2), axis=2)
    else:
        image = np.zeros_like(image)
    cv2.imwrite(str(path), image[..., 2::-1] if image.ndim == 3 and image.shape[2] == 3 else image)
    return f"{kind} of {path.name}"


def mutate_tree(root: pathlib.Path, rng: np.random.Generator) -> str:
    """Remove, rename, double or replace a file or folder."""
    places = sorted(root.rglob("*"))
    place = places[rng.integers(len(places))]
    kind = ("remove", "rename", "double", "folder", "dangling link", "loop")[rng.integers(6)]
    if kind == "rename":
        place.rename(place.with_name(f"{rng.integers(100):08d}{place.suffix}"))
        return f"rename {place}"
    if kind == "double":
        target = place.with_name(f"{rng.integers(100):08d}{place.suffix}")
        if not target.exists():
            (shutil.copytree if place.is_dir() else shutil.copy)(place, target)
        return f"double {place}"
    shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    if kind == "folder":
        place.mkdir()
    elif kind == "dangling link":
        place.symlink_to("nowhere")
    elif kind == "loop":
        place.symlink_to(place.name)
    return f"{kind} {place}"


def mutate(folders: tuple[pathlib.Path, pathlib.Path], rng: np.random.Generator) -> str:
    """One to three mutations anywhere in a truth and a result folder."""
    done = []
    for _ in range(min(rng.geometric(0.7), 3)):
        root = folders[rng.integers(2)]
        files = sorted(path for path in root.rglob("*") if path.is_file())
        pick = rng.random()
        jsons = [path for path in files if path.suffix == ".json"]
        pngs = [path for path in files if path.suffix == ".png"]
        try:
            if pick < 0.65 and jsons:
                done.append(mutate_json(jsons[rng.integers(len(jsons))], rng))
            elif pick < 0.8 and pngs:
                done.append(mutate_pixels(pngs[rng.integers(len(pngs))], rng))
            elif pick < 0.9 and files:
                done.append(mutate_bytes(files[rng.integers(len(files))], rng))
            elif list(root.rglob("*")):
                done.append(mutate_tree(root, rng))
        except (ValueError, RecursionError, OSError):  # an earlier mutation broke what this one would change
            done.append("nothing to change")
    return "; ".join(done)
