"""Files of the data tools: progress bars, atomic writing, disk space, readable errors."""

import contextlib
import itertools
import json
import os
import pathlib
import platform
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from vps_jax.types import UserError

# what is told how far something is: items done, items in all or None, and what is worked on
Watcher = Callable[[int, int | None, str | None], None]


@contextlib.contextmanager
def progress_bar(
    description: str, *, total: int | None = None, show: bool | Watcher = True
) -> Iterator[Callable[..., None]]:
    """A function that counts one more item, and may be given a new description.

    Args:
      description: what is worked on.
      total: items in all, if that is known.
      show: draw a bar; or what is told instead, after every item. What it raises ends the work.
    """
    if callable(show):
        done = itertools.count(1)
        yield lambda description=description: show(next(done), total, description)
        return
    if not show:
        yield lambda description=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task(description, total=total)
        yield lambda description=None: bar.update(job, advance=1, description=description)


def track(items: Iterable, description: str, *, total: int | None = None, show: bool = True) -> Iterator:
    """Iterate under a progress bar (a plain iteration when `show` is False)."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
    with progress_bar(description, total=total, show=show) as advance:
        for item in items:
            yield item
            advance()


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path beside `path`, with its suffix, that takes its place when the block ends well."""
    owner = f"{platform.node()}.{os.getpid()}.{threading.get_native_id()}"
    temporary = path.with_name(f".{path.stem}.{owner}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class InUse(Exception):
    """Another process holds a lock; says which, in words, or nothing."""


def lock(number: int) -> bool:
    """Lock an open file until it is closed or the process ends, and write into it whose it is.

    Returns:
      False where there are no locks, as on some disks of a network and on Windows.

    Raises:
      InUse: another process holds it.
    """
    try:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(os.pread(number, 200, 0).decode(errors="replace").strip()) from None
    except (ImportError, OSError):
        return False
    with contextlib.suppress(OSError):  # a full disk, of which the run says it
        os.ftruncate(number, 0)
        os.pwrite(number, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    return True


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_json(path: pathlib.Path, value: Any, *, indent: int | None = None) -> None:
    """Write a json file atomically, on one line or for people to read."""
    write_text(path, json.dumps(value, indent=indent) + ("" if indent is None else "\n"))


def write_image(path: pathlib.Path, image: np.ndarray, *, quality: int = 95) -> None:
    """Write a JPEG or PNG atomically; 3-channel arrays are RGB `[h, w, 3]`, others `[h, w]` uint8 or uint16."""
    import cv2

    if image.ndim == 3:
        image = image[..., ::-1]
    good, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else [])
    assert good, f"{path}: {image.dtype} {image.shape} cannot be encoded"
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_palette_png(path: pathlib.Path, indices: np.ndarray) -> None:
    """Write uint8 `[h, w]` as a PNG with a palette, atomically; index i has the colour (i, 7 i, 31 i) modulo 256."""
    from PIL import Image

    picture = Image.fromarray(indices)
    picture.putpalette([factor * i % 256 for i in range(256) for factor in (1, 7, 31)])
    with atomic_path(path) as temporary:
        picture.save(temporary)


@contextlib.contextmanager
def fresh_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and is removed if not.

    Raises:
      UserError: `out` is there and not empty, or its parent cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; expected a new or empty folder: name another or remove it")
    temporary = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    except OSError as error:
        raise UserError(f"{out.parent} cannot be written ({error.strerror}); choose another output folder") from error
    try:
        yield temporary
        if out.exists():
            out.rmdir()
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def duration(seconds: float) -> str:
    """`3725.2` -> `1:02:05`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def require_space(folder: pathlib.Path, needed: int, purpose: str = "the files") -> None:
    """Check that `needed` bytes fit on the disk of `folder` (which need not exist yet).

    Raises:
      UserError: they do not.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {amount(free)} free, {purpose} need {amount(needed)}; free some or choose another folder"
        )


def amount(size: int) -> str:
    """Bytes in words: `2.5 GB`, or `2.5 MB` of what is less than one GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def require_target(path: pathlib.Path) -> None:
    """Check that a file can be written.

    Raises:
      UserError: it is a folder, or lies in none that can be written.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected a file to write")
    if not path.parent.is_dir():
        raise UserError(f"{path}: {path.parent} is no folder; expected a file in a folder: make it or name another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{path}: folder {path.parent} cannot be written; choose another")


def read_lines(path: pathlib.Path) -> list[str]:
    """Stripped non-empty lines of a text file.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected one name per line") from None


def visible(folder: pathlib.Path, suffixes: str | tuple[str, ...] = "") -> list[pathlib.Path]:
    """Entries with one of the suffixes (in any case), sorted by name, without dot files; none in a missing folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(suffixes) and not p.name.startswith("."))
