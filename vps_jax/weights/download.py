"""The file of a published checkpoint: taken from a folder, or fetched into it, and compared with the table.

A file comes under the name `FILE.part` and gets its own name once it is complete and has been checked. A download that
broke off goes on at its end if the server says that the file has not changed since (`If-Range`), and starts again
otherwise.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

from vps_jax.files import progress_bar, require_space
from vps_jax.types import UserError
from vps_jax.weights.catalogue import Entry

CHUNK = 1 << 20
PATIENCE = 30  # seconds without an answer
HUB = re.compile(r"https://huggingface\.co/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class Fetched(NamedTuple):
    """A file that is there: its size in bytes, its sha256, and whether the table knew the sum and it is right."""

    path: pathlib.Path
    size: int
    sha256: str
    verified: bool


def fetch(entry: Entry, folder: pathlib.Path) -> Fetched:
    """The file of an entry, from `folder` if it lies there already and from its address otherwise.

    Args:
      entry: row of the table.
      folder: of this entry's file alone; made if there is something to put in it.

    Raises:
      UserError: no address is known or it cannot be reached (the line says what to put where by hand), the server
        refuses, the download breaks off, the disk is full, or the file is not the published one.
    """
    if (there := lying_there(entry, folder)) is not None:
        return checked(entry, there)
    if entry.address is None or entry.file is None:
        raise UserError(f"no address of {entry.name} is known; {by_hand(entry, folder)}")
    part = folder / f"{entry.file}.part"
    with writing(folder):
        (from_hub if HUB.fullmatch(entry.address) and has_hub() else over_http)(entry, part)
        try:
            fetched = checked(entry, part)
        except UserError:
            part.unlink()
            raise
        os.replace(part, folder / entry.file)
    return fetched._replace(path=folder / entry.file)


def lying_there(entry: Entry, folder: pathlib.Path) -> pathlib.Path | None:
    """The entry's file in a folder; of an entry without a file name, the only one there."""
    if entry.file is not None:
        return folder / entry.file if (folder / entry.file).is_file() else None
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if len(files) > 1:
        raise UserError(f"{folder} holds {len(files)} files; expected the one of {entry.name}: remove the others")
    return files[0] if files else None


def by_hand(entry: Entry, folder: pathlib.Path) -> str:
    """What somebody without network does, as the end of a line."""
    source = entry.address or entry.page
    what = entry.file or f"the file of {entry.model} ({entry.data or 'its authors name the data'})"
    place = folder / entry.file if entry.file else f"{folder}{os.sep}"
    return f"fetch {what} by hand{f' from {source}' if source else ''}, put it at {place} and run this again"


def checked(entry: Entry, path: pathlib.Path) -> Fetched:
    """Size and sha256 of a file. Raises UserError if the table knows others."""
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise UserError(f"{entry.file or path} has {size} bytes, expected {entry.size}; fetch it again")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if entry.sha256 is not None and digest != entry.sha256:
        raise UserError(
            f"{entry.file or path} has the sha256 {digest}, expected {entry.sha256}; it is not the published file: "
            "fetch it again, or ask its authors whether they replaced it"
        )
    return Fetched(path, size, digest, entry.sha256 is not None)


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder; folders that stay empty go again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); free or choose another") from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()


def over_http(entry: Entry, part: pathlib.Path) -> None:
    """Fetches `entry.address` as `part`, or the rest of it."""
    stamp = part.with_suffix(".stamp")  # what the server calls this state of the file
    start = part.stat().st_size if part.is_file() and stamp.is_file() else 0
    headers = {"User-Agent": "vps-jax"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": stamp.read_text()}
    try:
        with urllib.request.urlopen(urllib.request.Request(entry.address, headers=headers), timeout=PATIENCE) as answer:
            receive(entry, answer, part, stamp, start)
    except urllib.error.HTTPError as error:
        if error.code < 500:
            part.unlink(missing_ok=True)
            stamp.unlink(missing_ok=True)
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return over_http(entry, part)
        raise UserError(
            f"{entry.address} answers {error.code} {error.reason}; {by_hand(entry, part.parent)}"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise unreachable(entry, part, getattr(error, "reason", error)) from error
    stamp.unlink(missing_ok=True)


def receive(entry: Entry, answer, part: pathlib.Path, stamp: pathlib.Path, start: int) -> None:
    """Writes an answer behind the `start` bytes that are there, or anew if the server sends the whole file."""
    start = start if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
    length = answer.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    require_space(part.parent, int(length or 0), entry.file)
    if not start:
        part.unlink(missing_ok=True)
        stamp.unlink(missing_ok=True)
        tag = answer.headers.get("ETag") or ""
        if state := (tag if tag.startswith('"') else answer.headers.get("Last-Modified")):  # W/ tags name no bytes
            stamp.write_text(state)
    with (
        part.open("ab") as file,
        progress_bar(entry.file, total=total and -(-(total - start) // CHUNK), show=sys.stderr.isatty()) as advance,
    ):
        try:
            while data := answer.read(CHUNK):
                file.write(data)
                advance()
            whole = total in (None, file.tell())
        except (http.client.HTTPException, TimeoutError, ConnectionError):
            whole = False
        written = file.tell()
    if not whole:
        again = "goes on from there" if stamp.is_file() else "starts anew"
        raise UserError(
            f"{entry.address} broke off after {written} of {total or 'unknown'} bytes; run this again, it {again}"
        )


def unreachable(entry: Entry, part: pathlib.Path, reason) -> UserError:
    """The line for a machine without network."""
    return UserError(
        f"{urllib.parse.urlsplit(entry.address).hostname} cannot be reached ({reason}); {by_hand(entry, part.parent)}"
    )


def has_hub() -> bool:
    """Whether the extra `weights` is installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def check_name(entry: Entry, part: pathlib.Path, server: str) -> None:
    """Raises UserError where the server's name has no address: the library would try again for half a minute."""
    if urllib.request.getproxies():
        return  # they look names up
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(server).hostname, None)
    except OSError as error:
        raise unreachable(entry, part, error.strerror or error) from error


def from_hub(entry: Entry, part: pathlib.Path) -> None:
    """Fetches a file of the Hugging Face Hub as `part`, with the library's own resuming, tokens and mirrors."""
    import huggingface_hub
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import logging

    words, folder = HUB.fullmatch(entry.address), part.parent / ".hub"
    check_name(entry, part, constants.ENDPOINT)
    logging.set_verbosity_error()  # its line for each of several tries
    try:
        path = huggingface_hub.hf_hub_download(
            words["repo"], urllib.parse.unquote(words["file"]), revision=words["revision"], local_dir=folder
        )
        os.replace(path, part)
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        raise UserError(f"{entry.address} answers {code}; {by_hand(entry, part.parent)}") from error
    except (errors.HTTPError, errors.XetDownloadError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise unreachable(entry, part, "no connection") from error
    finally:
        if not any(folder.rglob("*.incomplete")):  # from which it would go on
            shutil.rmtree(folder, ignore_errors=True)
