"""A result folder as the zip file that challenges take; equal results give equal bytes."""

import pathlib
import zipfile

from vps_jax.files import atomic_path

DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can state
EXTRAS = ("overlay", "tracks", "classes.json")  # beside the results


def write_archive(folder: pathlib.Path, path: pathlib.Path) -> int:
    """Pack the PNGs and lists of a result folder, without pictures, tables and hidden files; returns their number."""
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix in (".png", ".json") and is_result(file.relative_to(folder))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED if file.suffix == ".json" else zipfile.ZIP_STORED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
    return len(files)


def is_result(name: pathlib.PurePath) -> bool:
    """Whether a file of a result folder belongs to the results."""
    return name.parts[0] not in EXTRAS and not any(part.startswith(".") for part in name.parts)
