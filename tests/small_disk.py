"""A disk of a few mebibytes, to be filled."""

import contextlib
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount one of `size`, such as `1m`, at a new folder; gives a function of new mount options, such as `size=64m`."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted; this needs root")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)
