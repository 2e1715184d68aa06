"""Files that a score is written to: looked at before the scoring starts, and written whole or not at all."""

import contextlib
import os
import pathlib
import stat
import sys
from collections.abc import Iterable, Sequence

from vps_jax.types import UserError

PathLike = str | os.PathLike


def check(outputs: Sequence[PathLike | None], inputs: Iterable[pathlib.Path]) -> None:
    """Refuse what cannot be written, or must not be.

    Args:
      outputs: files to be written; None is left out.
      inputs: files and folders that are read.

    Raises:
      UserError: an output is a folder, lies where nothing can be written, is given twice, or is an input or in one.
    """
    taken: dict[pathlib.Path, PathLike] = {}
    read = [path.resolve() for path in inputs]
    for output in outputs:
        if output is None:
            continue
        target = _resolved(output)
        if target in taken:
            raise UserError(f"{output} is asked for twice; choose another file for one of the two")
        if _is_special(pathlib.Path(output)):
            continue
        taken[target] = output
        _check_target(output, target)
        for path in read:
            if target == path or path in target.parents or _same_file(target, path):
                raise UserError(f"{output} is an input ({path}); choose another file")


def _resolved(output: PathLike) -> pathlib.Path:
    """The file behind all links.

    Raises:
      UserError: links in a circle, or a name that no file can have.
    """
    try:
        target = pathlib.Path(output).resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            target.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{output}: {getattr(error, 'strerror', None) or error}; choose another file") from None
    return target


def _check_target(output: PathLike, target: pathlib.Path) -> None:
    if target.is_dir():
        raise UserError(f"{output} is a folder; expected a file to write")
    parent = next(folder for folder in target.parents if folder.exists())
    if not parent.is_dir():
        raise UserError(f"{output}: {parent} is no folder; choose a file in a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{output}: folder {parent} cannot be written; choose another")


def _same_file(one: pathlib.Path, other: pathlib.Path) -> bool:
    """True for two names of one file (hard links)."""
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _is_special(path: pathlib.Path) -> bool:
    """A device, a pipe or a stream of this process: nothing that a new file could take the place of."""
    with contextlib.suppress(OSError):
        return not (stat.S_ISREG(path.stat().st_mode) or path.is_dir()) or _stream(path) is not None
    return False


def _stream(path: pathlib.Path):
    """The text stream of this process that a path such as /dev/stdout is, else None."""
    by_name = {"/dev/stdout": sys.stdout, "/dev/fd/1": sys.stdout, "/dev/stderr": sys.stderr, "/dev/fd/2": sys.stderr}
    if str(path) in by_name:
        return by_name[str(path)]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
    return None


def goes_to_stdout(path: PathLike | None) -> bool:
    """Whether a file is this process' standard output, so that nothing else should be printed there."""
    return path is not None and _stream(pathlib.Path(path)) is sys.stdout


def write(path: PathLike, content: str | bytes) -> None:
    """Write a file whole: a regular file is replaced at once, also behind a symlink; devices and pipes are written to.

    Raises:
      UserError: it cannot be written.
    """
    path = pathlib.Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        if (stream := _stream(path)) is not None:
            stream.flush()
            getattr(stream, "buffer", stream).write(data if hasattr(stream, "buffer") else data.decode())
            stream.flush()
        elif _is_special(path):
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; choose another file") from None


def _replace(path: pathlib.Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        if path.exists():
            partial.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
