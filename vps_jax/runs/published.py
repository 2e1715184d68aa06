"""The commands `weights`: published checkpoints by name, from their file to a checkpoint of ours in the cache."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping

from vps_jax.config import Experiment
from vps_jax.config import experiment as read_config
from vps_jax.files import fresh_folder, require_space
from vps_jax.runs import config_files, experiment
from vps_jax.types import UserError
from vps_jax.weights import catalogue, download
from vps_jax.weights.catalogue import Entry

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

OWN = ("ema", "raw")  # weights that a checkpoint of ours holds


def cache() -> pathlib.Path:
    """The folder of fetched files and converted checkpoints."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vps_jax" / "weights"


def table() -> list[str]:
    """One line per published checkpoint; those that are in the cache have a star."""
    rows = [
        ("*" if place(entry.name).is_dir() else " ", entry.name, entry.model, entry.use, entry.scores)
        for entry in catalogue.entries()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def place(name: str) -> pathlib.Path:
    """Where the cache has the checkpoint of a name."""
    return cache() / "checkpoints" / name


def get(name: str, output: pathlib.Path | None = None) -> pathlib.Path:
    """A published checkpoint as one of ours, fetched and converted unless the cache has it.

    Args:
      name: of the table.
      output: new folder instead of the cache's.

    Returns:
      The folder, which serves as `--checkpoint`.

    Raises:
      UserError: unknown name, `output` is there, or see `weights.download.fetch` and `experiment.convert_weights`.
    """
    entry, out = catalogue.find(name), output or place(name)
    if output is None and out.is_dir():
        return out
    with alone(cache()):
        if output is None and out.is_dir():  # by the process that this one has waited for
            return out
        with download.writing(out.parent), fresh_folder(out) as folder:
            print(f"{name}: {entry.licence or 'licence unknown, ask its authors'}")
            fetched = download.fetch(entry, cache() / "files" / name)
            known = "as expected" if fetched.verified else "none is known to compare it with"
            print(f"{fetched.path}: {fetched.size} bytes, sha256 {fetched.sha256} ({known})")
            with weights_file(fetched.path) as file:
                report = experiment.convert_weights(file, config_of(entry), folder)
    print("\n".join(report["notes"]))
    print(f"{report['from_file']} of {report['parameters']} parameters from {fetched.path.name} -> {out}")
    return out


def chosen(weights: str | None, checkpoint: pathlib.Path | None) -> tuple[pathlib.Path | None, str]:
    """The checkpoint and the weights of it that `--weights` and `--checkpoint` name together.

    Args:
      weights: `ema`, `raw` or None of `checkpoint`, or the name of published weights in its place.
      checkpoint: None if none was given.

    Raises:
      UserError: both name a checkpoint, published weights that do not predict, or see `get`.
    """
    if weights is None or weights in OWN:
        return checkpoint, weights or "ema"
    if weights not in {entry.name for entry in catalogue.entries()}:
        raise UserError(f"--weights {weights}; expected ema, raw or a name of `vps-jax weights list`")
    entry = catalogue.find(weights)
    if checkpoint is not None:
        raise UserError(f"--weights {weights} takes the place of --checkpoint {checkpoint}; leave one of them out")
    if entry.use != "predict":
        raise UserError(f"--weights {weights}: {entry.model} is a start for training and predicts nothing by itself")
    return get(weights), "ema"


def config_of(entry: Entry) -> Experiment:
    """The experiment that an entry is converted with."""
    return read_config(merged(config_files.load(entry.config), entry.changes))


def merged(config: Mapping, changes: Mapping) -> dict:
    """A config with some of its keys, at any depth, changed."""
    inner = {key: merged(config[key], value) if isinstance(value, Mapping) else value for key, value in changes.items()}
    return {**config, **inner}


@contextlib.contextmanager
def weights_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The checkpoint file itself: the one `.pth` of a published `.zip`, unpacked while the block runs."""
    if path.suffix != ".zip":
        yield path
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        yield unpacked(path, pathlib.Path(folder) / f"{path.stem}.pth")


def unpacked(path: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Writes the one `.pth` of an archive to `target`, whatever its name inside is.

    Raises:
      UserError: the archive is damaged, holds none or several, or the disk is full.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inner = [info for info in archive.infolist() if info.filename.endswith(".pth")]
            if len(inner) != 1:
                raise UserError(f"{path} holds {len(inner)} .pth files; expected one: remove it and fetch it again")
            require_space(path.parent, inner[0].file_size, inner[0].filename)
            with archive.open(inner[0]) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, download.CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and fetch it again") from error
    return target


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder and keeps other processes that ask for it waiting: several may predict with one name."""
    with download.writing(folder):
        if fcntl is None:
            yield
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
