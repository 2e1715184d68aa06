"""A result folder as a zip file, such as challenges take; equal results give equal bytes."""

import pathlib
import zipfile
from collections.abc import Callable

from vps_jax.files import atomic_path

DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can state
EXTRAS = ("overlay", "tracks", "classes.json")  # beside the results


def is_hidden(name: pathlib.PurePath) -> bool:
    """Whether a file of a result folder is none of the results, such as the state of its videos."""
    return any(part.startswith(".") for part in name.parts)


def is_result(name: pathlib.PurePath) -> bool:
    """Whether a file of a result folder belongs to a submission."""
    return name.parts[0] not in EXTRAS and name.suffix in (".png", ".json")


def write_archive(
    folder: pathlib.Path, path: pathlib.Path, wanted: Callable[[pathlib.PurePath], bool] = is_result
) -> int:
    """Pack a result folder without its hidden files; returns the number of files.

    Args:
      folder: of the results.
      path: new zip file.
      wanted: which files, by their names in the folder: by default the PNGs and lists without pictures and tables.
    """
    names = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    files = [folder / name for name in names if wanted(name) and not is_hidden(name)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED if file.suffix == ".json" else zipfile.ZIP_STORED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
    return len(files)
