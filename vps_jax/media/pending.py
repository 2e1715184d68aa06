"""Compressed pieces of frames that wait: in memory up to a budget, beyond it in temporary files."""

import pathlib
import tempfile

HELD_BYTES = 8 << 20  # in memory; the rest is on the disk


class PendingBlobs:
    """Byte strings by key, each read once.

    `put` keeps a string in memory while the sum stays within `budget_bytes`, else writes it to a file of its own in a
    temporary folder (the system's, TMPDIR moves it); `pop` gives it back and frees its room.
    """

    def __init__(self, budget_bytes: int = HELD_BYTES):
        self.budget_bytes = budget_bytes
        self._memory: dict[int, bytes] = {}
        self._held = 0
        self._next = 0
        self._folder: tempfile.TemporaryDirectory | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes in memory."""
        return self._held

    def put(self, blob: bytes) -> int:
        """Keep `blob`; returns its key."""
        key, self._next = self._next, self._next + 1
        if self._held + len(blob) <= self.budget_bytes:
            self._memory[key] = blob
            self._held += len(blob)
        else:
            self._path(key).write_bytes(blob)
        return key

    def pop(self, key: int) -> bytes:
        """The string of `key`, which is gone afterwards."""
        if key in self._memory:
            blob = self._memory.pop(key)
            self._held -= len(blob)
            return blob
        path = self._path(key)
        blob = path.read_bytes()
        path.unlink()
        return blob

    def close(self) -> None:
        """Drop everything, on disk too."""
        self._memory.clear()
        self._held = 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _path(self, key: int) -> pathlib.Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vps_jax_frames_")
        return pathlib.Path(self._folder.name) / f"{key}.z"
