"""One `data prepare` at a time for every prepared set: a lock that goes with the process that holds it."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from vps_jax import files
from vps_jax.types import UserError

TRIES = 8  # at a file that its owner may remove in between


@contextlib.contextmanager
def held(out: pathlib.Path, name: str) -> Iterator[None]:
    """Hold `out/.<name>.lock` for the block; nothing of it is left afterwards, neither file nor an empty new folder.

    The system lets go of it when the process dies, however it does. Where no file can be written or the disk knows no
    locks, the block runs without one.

    Raises:
      UserError: another process holds it.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    path = out / f".{name}.lock"
    with contextlib.suppress(OSError):
        out.mkdir(parents=True, exist_ok=True)
    number = taken(path)
    try:
        yield
    finally:
        if number is not None:
            path.unlink(missing_ok=True)  # while it is held, or that of the next one would go
            os.close(number)
        with contextlib.suppress(OSError):  # a folder that is not empty
            for folder in made:
                folder.rmdir()


def taken(path: pathlib.Path) -> int | None:
    """Descriptor of the file, locked; None where there can be no lock.

    Raises:
      UserError: another process holds it.
    """
    for _ in range(TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its owner removed the folder that it had made
            continue
        except OSError:
            return None
        try:
            locked = files.lock(number)
        except files.InUse as owner:
            os.close(number)
            raise UserError(
                f"{path.parent} is being prepared by {str(owner) or 'another process'}; expected one run at a time: "
                "wait for its end, or name another --out"
            ) from None
        if not locked:
            path.unlink(missing_ok=True)
            os.close(number)
            return None
        if is_same(number, path):
            return number
        os.close(number)
    return None


def is_same(number: int, path: pathlib.Path) -> bool:
    """Whether an open file is still the one of this name, and not one that its last owner removed."""
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False
