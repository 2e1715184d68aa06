"""Whether a container file is whole, by the sizes that it states; FFmpeg decodes what is there and ends in silence."""

import pathlib
import struct

import av

from vps_jax.types import UserError

# what PyAV raises for files that are broken
BROKEN = (av.error.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, MemoryError, RuntimeError)
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def open_container(path: pathlib.Path):
    """A file for reading. FFmpeg takes what stands before a colon in a relative path for a protocol."""
    return av.open(f"file:{path.absolute()}", metadata_errors="replace")


def check_whole(path: pathlib.Path) -> None:
    """Raises UserError for an MP4, AVI, Matroska or WebM file that breaks off; other containers state no sizes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            whole = riff_end(file, size) <= size
        elif head[:4] == EBML:
            whole = matroska_end(head) <= size
        else:
            whole = index_end(path) <= size
    if not whole:
        raise UserError(f"{path}: is cut off, it says that it is longer; expected a whole video, copy it again")


def riff_end(file, size: int) -> int:
    """Where the last RIFF chunk of an AVI file ends; a long file has several."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            break
        at += 8 + length + length % 2
    return at - (at == size + 1)  # the last padding byte may be left out


def matroska_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends; 0 where that is unknown, as in a live recording."""
    length, width = ebml_number(head, 4)
    at = 4 + width + length
    if length < 0 or head[at : at + 4] != SEGMENT:
        return 0
    length, width = ebml_number(head, at + 4)
    return 0 if length < 0 else at + 4 + width + length


def ebml_number(data: bytes, at: int) -> tuple[int, int]:
    """A length and the number of its bytes; all ones are "unknown", -1."""
    if at >= len(data) or not data[at]:
        return -1, 1
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (-1 if value == (1 << 7 * width) - 1 else value), width


def index_end(path: pathlib.Path) -> int:
    """Where the last packet ends that the index of a file names."""
    with open_container(path) as container:
        return max((e.pos + e.size for s in container.streams.video for e in s.index_entries), default=0)
