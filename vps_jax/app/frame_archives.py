"""Zip files of frames, which a browser can send as one file."""

import pathlib
import shutil
import zipfile
import zlib

from vps_jax.files import require_space
from vps_jax.media.image_files import IMAGE_SUFFIXES
from vps_jax.types import UserError


def unpack(path: pathlib.Path, parent: pathlib.Path) -> pathlib.Path:
    """Write the images of a zip file to a new folder in `parent` that has its name; folders inside do not count.

    Raises:
      UserError: it is damaged, has no images or two of one name, or they do not fit on the disk.
    """
    folder = parent / path.stem
    try:
        with zipfile.ZipFile(path) as archive:
            frames = frames_of(archive, path.name)
            require_space(parent, sum(info.file_size for info in frames.values()), path.name)
            folder.mkdir(parents=True)
            for name, info in frames.items():
                with archive.open(info) as source, (folder / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except FileExistsError:
        raise UserError(f"two uploads are named {path.name!r}; rename one") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path.name} is damaged ({error}); expected a zip file of frames, pack it again") from error
    return folder


def frames_of(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """The images of an archive by their names without folders; the files that macOS adds are left out.

    Raises:
      UserError: none, or two of one name.
    """
    frames: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        inner = pathlib.PurePosixPath(info.filename.replace("\\", "/"))
        if info.is_dir() or inner.suffix.lower() not in IMAGE_SUFFIXES or inner.name.startswith("."):
            continue
        if inner.name in frames:
            raise UserError(f"{name}: has two images named {inner.name!r}; expected the frames of one video")
        frames[inner.name] = info
    if not frames:
        raise UserError(f"{name}: has no images; expected the frames of one video ({', '.join(IMAGE_SUFFIXES)})")
    return frames
