"""A prepared set of own data that takes the place of another: written beside it, and exchanged when it is whole.

While `out/.again` is written, the old set is as it was. Its renaming to `out/.swap` decides: from then on a run that
finds the folder ends the exchange, so that no set is a mixture of two, whenever a run is killed.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

from vps_jax import files
from vps_jax.data.own_prepare import CLASSES, FRAMES, PREVIEW, RECORDS, TRUTH
from vps_jax.types import UserError

AGAIN, SWAP, OLD = ".again", ".swap", ".old"
ASKED, ALL = "asked.json", "all.json"  # what the new set is made from, and which parts it has
PARTS = (CLASSES, PREVIEW, FRAMES, TRUTH, RECORDS)  # the records come last: without them there is no set to read


def begin(out: pathlib.Path, asked: dict) -> pathlib.Path:
    """The folder for the new set. What a killed run left there is kept if it was asked for the same.

    Args:
      out: folder of the old set.
      asked: plain values of what the new set is made from.

    Raises:
      UserError: it cannot be written.
    """
    folder, text = out / AGAIN, json.dumps(asked)
    try:
        if folder.is_dir() and not ((folder / ASKED).is_file() and (folder / ASKED).read_text() == text):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / ASKED, text)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another output folder") from error
    return folder


def drop(out: pathlib.Path) -> None:
    """Remove a new set that is not whole."""
    shutil.rmtree(out / AGAIN, ignore_errors=True)


def take_place(out: pathlib.Path) -> None:
    """Put the new set, which is whole, in the place of the old one.

    Raises:
      UserError: the disk refuses.
    """
    with one_line(out):
        files.write_json(out / AGAIN / ALL, [part for part in PARTS if (out / AGAIN / part).exists()])
        os.replace(out / AGAIN, out / SWAP)
    finish(out)


def finish(out: pathlib.Path) -> None:
    """End an exchange that was begun; nothing where none was.

    Raises:
      UserError: the disk refuses.
    """
    swap = out / SWAP
    if not swap.is_dir():
        return
    with one_line(out):
        if (swap / ALL).is_file():  # it goes when all is done
            exchange(out, swap, json.loads((swap / ALL).read_text()))
        shutil.rmtree(swap)


@contextlib.contextmanager
def one_line(out: pathlib.Path) -> Iterator[None]:
    """Turns what the disk refuses into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); make room and start again: it goes on") from error


def exchange(out: pathlib.Path, swap: pathlib.Path, parts: list[str]) -> None:
    """Move the old parts away, then the new ones in; parts that were moved before are let be."""
    (swap / OLD).mkdir(exist_ok=True)
    for part in reversed(PARTS):
        is_old = (swap / part).exists() or part not in parts
        if is_old and (out / part).exists():
            os.replace(out / part, swap / OLD / part)
    for part in PARTS:
        if (swap / part).exists():
            os.replace(swap / part, out / part)
    shutil.rmtree(swap / OLD)
    (swap / ALL).unlink()
