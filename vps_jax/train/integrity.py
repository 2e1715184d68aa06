"""Whether a checkpoint on the disk is whole: its items are there, and its files have the bytes that were written."""

import contextlib
import json
import os
import pathlib
import zlib

from vps_jax.files import write_json

FILE = "checksums.json"  # in a step's folder: path below it -> [bytes, crc32]
BLOCK = 2**24


def seal(folder: pathlib.Path) -> None:
    """Write down size and checksum of every file of a finished checkpoint."""
    write_json(folder / FILE, {str(path.relative_to(folder)): sum_of(path) for path in files(folder)})


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files below a checkpoint's folder but those that are written after it was finished."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.parent != folder)


def sum_of(path: pathlib.Path) -> list[int]:
    """Bytes and crc32 of a file."""
    checksum, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return [size, checksum]


def damage(folder: pathlib.Path, items: tuple[str, ...]) -> str | None:
    """What is wrong with a checkpoint, in words; None when nothing is.

    Args:
      folder: of one step.
      items: that are going to be read. One that a kill left without checksums is taken as it is.
    """
    for item in items:
        if not (folder / item).is_dir() or not any((folder / item).iterdir()):
            return f"{item} is missing"
    try:
        known = json.loads((folder / FILE).read_text())
        known = {str(name): [int(size), int(checksum)] for name, (size, checksum) in known.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{FILE} cannot be read ({error})"
    for name, expected in known.items():
        if name.split("/")[0] not in items:
            continue
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected[0]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected[0]}"
        if sum_of(path) != expected:
            return f"{name} has other bytes than were written"
    return None


def is_sealed(folder: pathlib.Path) -> bool:
    """Whether a checkpoint has checksums."""
    return (folder / FILE).exists()


def bytes_on_disk(folder: pathlib.Path) -> int:
    """Bytes of all files below a folder, whose leftovers of a kill may be vanishing meanwhile."""
    sizes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes += os.path.getsize(os.path.join(parent, name))
    return sizes
