"""Results in a zip file, as servers take them: unpacked beside nothing, read as the folder that they are."""

import contextlib
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator

from vps_jax.types import UserError

HEADS = ("pred.json", "results.json")  # what stands at the root of results
NESTED = "pan_pred.zip"  # Cityscapes-VPS packs its PNGs once more


@contextlib.contextmanager
def opened(predictions: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder of results; that of a zip file is temporary.

    Raises:
      UserError: the zip file is broken, encrypted, or too large for the temporary folder.
    """
    if predictions.suffix.lower() != ".zip" or predictions.is_dir():
        yield predictions
        return
    with tempfile.TemporaryDirectory(prefix="vps_jax_results_") as scratch:
        folder = pathlib.Path(scratch)
        _unpack(predictions, folder)
        root = _root(folder)
        if (root / NESTED).is_file() and not (root / "pan_pred").exists():
            _unpack(root / NESTED, root / "pan_pred")
            if (root / "pan_pred/pan_pred").is_dir():
                (root / "pan_pred").rename(root / "unpacked")
                (root / "unpacked/pan_pred").rename(root / "pan_pred")
        yield root


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """`extractall` keeps every entry below the folder, whatever its name says."""
    try:
        with zipfile.ZipFile(archive) as file:
            needed = sum(entry.file_size for entry in file.infolist())
            if needed > (free := shutil.disk_usage(folder.parent).free):
                raise UserError(f"{archive}: unpacked it has {needed} bytes, {folder.parent} has {free}; set TMPDIR")
            file.extractall(folder)
    except OSError as error:
        raise UserError(f"{archive}: {error.strerror or error}; expected a zip file of results") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError) as error:
        raise UserError(f"{archive}: not a zip file that can be read ({error}); pack it again") from None


def _root(folder: pathlib.Path) -> pathlib.Path:
    """Where the results begin: at the root, or in the only folder there, if that is no folder of one video's frames."""
    entries = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    if len(entries) == 1 and entries[0].is_dir():
        inside = entries[0]
        if any((inside / head).is_file() for head in HEADS) or any(path.is_dir() for path in inside.iterdir()):
            return inside
    return folder
