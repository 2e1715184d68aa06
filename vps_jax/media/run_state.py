"""Who works on which video of a result folder, and which are finished: several processes and hosts may share one.

Everything is a small file in the hidden folder `.state`, made or replaced at once: `<video>.json` of a finished video,
`<video>.claim` of one that somebody works on. A claim is renewed by a thread, so that it outlives a slow frame but not
its process. It names the place where the number of its process means something: a host, and there a container.
"""

import contextlib
import json
import os
import pathlib
import platform
import signal
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from vps_jax.files import write_json

FOLDER = ".state"
RENEW_SECONDS = 20.0
STALE_SECONDS = 300.0  # of a claim of another place, which may be dead
POLL_SECONDS = 1.0


@contextlib.contextmanager
def stop_on_sigterm(wanted: bool) -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: with KeyboardInterrupt. Nothing unless `wanted`, in the main thread."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class RunState:
    """The state of one result folder."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder / FOLDER
        self._folder.mkdir(exist_ok=True)
        self._read: dict[str, tuple[int, bytes]] = {}  # file -> its time, its text compressed: there may be many

    def finished(self) -> dict[str, int]:
        """When each video was finished, in nanoseconds; files are read again only when they are new."""
        videos = {}
        for path in self._folder.glob("*.json"):
            try:
                stamp = path.stat().st_mtime_ns
                if self._read.get(path.stem, (None,))[0] != stamp:
                    text = path.read_bytes()
                    json.loads(text)
                    self._read[path.stem] = stamp, zlib.compress(text, 1)
            except (OSError, ValueError):
                continue  # replaced or removed this moment
            videos[unquote(path.stem)] = stamp
        return videos

    def content(self, video_id: str) -> dict[str, Any]:
        """What was said of a video of `finished`; nothing of another one."""
        _, text = self._read.get(quoted(video_id), (0, b""))
        return json.loads(zlib.decompress(text)) if text else {}

    def finish(self, video_id: str, content: dict[str, Any]) -> None:
        """Say that a video is finished, and how it was made."""
        write_json(self._folder / f"{quoted(video_id)}.json", content)

    @contextlib.contextmanager
    def claim(self, video_id: str) -> Iterator[bool]:
        """Whether the video is ours for the time of the block: False where another process works on it."""
        path, token = self._claim_file(video_id), uuid.uuid4().hex
        stop = threading.Event()
        renewal = threading.Thread(target=_renew, args=(path, stop), daemon=True)
        try:  # a signal may come at any moment, also while the claim is made
            ours = _create(path, token) or (_is_stale(path) and _take_over(path) and _create(path, token))
            if ours:
                renewal.start()
            yield ours
        finally:
            stop.set()
            if renewal.is_alive():
                renewal.join()
            if _owner(path)[2:] == [token]:
                path.unlink(missing_ok=True)

    def wait_for_unknown(self, video_ids: Iterable[str]) -> bool:
        """Wait until each of these videos, which others have claimed, is known to be in the hands of the living.

        Of another place, a process lives if it renews its claim. That takes `RENEW_SECONDS`, or `STALE_SECONDS` for one
        that is dead, so that a run that is started again at once takes over what a lost machine left.

        Returns:
          Whether a claim has become free; then it may be asked for again.
        """
        unknown = {path: _renewed(path) for path in map(self._claim_file, video_ids)}
        while True:
            for path, before in list(unknown.items()):
                if (now := _renewed(path)) is None or _is_stale(path):
                    return True
                if now != before or _owner(path)[:1] == [_place()]:
                    del unknown[path]
            if not unknown:
                return False
            time.sleep(POLL_SECONDS)

    def _claim_file(self, video_id: str) -> pathlib.Path:
        return self._folder / f"{quoted(video_id)}.claim"


def quoted(video_id: str) -> str:
    """The name of a video, which may have folders in it, as the name of a file."""
    return video_id.replace("%", "%25").replace("/", "%2F")


def _place() -> str:
    """Where numbers of processes mean the same: this host, and on Linux what its containers have of their own."""
    try:
        return f"{platform.node()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _renewed(path: pathlib.Path) -> int | None:
    """When a claim was renewed; None if it has been given back."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _owner(path: pathlib.Path) -> list[str]:
    """Place, process and token of a claim; nothing if it has just been given back."""
    try:
        return path.read_text().split()
    except OSError:
        return []


def _create(path: pathlib.Path, token: str) -> bool:
    """Make the claim, whole or not at all; False if it is there already."""
    draft = path.with_name(f"{path.name}.{token}.draft")
    try:
        draft.write_text(f"{_place()} {os.getpid()} {token}")
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: a process that is killed here leaves a claim that names nobody
            return _copy_to_new(draft, path)
        return True
    finally:
        draft.unlink(missing_ok=True)


def _copy_to_new(source: pathlib.Path, path: pathlib.Path) -> bool:
    """False if the file is there already."""
    try:
        with path.open("x") as file:
            file.write(source.read_text())
    except FileExistsError:
        return False
    return True


def _is_stale(path: pathlib.Path) -> bool:
    """Whether the claim's process is dead: known of this place's, assumed of others that renew it no longer."""
    if (renewed := _renewed(path)) is None:
        return False  # it has just been given back
    age = time.time() - renewed / 1e9
    place, pid = [*_owner(path), "", ""][:2]
    if not place:
        return age > RENEW_SECONDS
    if place != _place():
        return age > STALE_SECONDS
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        pass
    return age > STALE_SECONDS


def _take_over(path: pathlib.Path) -> bool:
    """Remove a stale claim; of several processes that try, one succeeds."""
    grave = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.stale")
    try:
        path.rename(grave)
    except OSError:
        return False
    grave.unlink(missing_ok=True)
    return True


def _renew(path: pathlib.Path, stop: threading.Event) -> None:
    while not stop.wait(RENEW_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
