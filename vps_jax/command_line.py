"""A command and its process: Ctrl-C that a library swallows, a standard output that takes nothing, memory."""

import _thread
import atexit
import contextlib
import errno
import gc
import os
import pathlib
import platform
import sys
import threading
from collections.abc import Callable, Iterator

from vps_jax.types import UserError

RETURNED_SECONDS = 0.05  # after which a callback has returned
NEW_OBJECTS = 100_000  # after which the garbage collector looks at them; Python's own number is 700

HUGE_PAGES = "glibc.malloc.hugetlb"  # a setting of glibc, since 2.35
PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
GPU = pathlib.Path("/dev/nvidia0")


def with_huge_pages() -> None:
    """Start this process again with huge pages for large blocks of memory, where training on a CPU gains by them.

    A training step allocates hundreds of MB, which the system clears page by page. With pages of 2 MB in place of 4 KB
    steps of `configs/tiny.py` took a fifth less time where nothing else ran on their core (docs/benchmarks.md). glibc
    reads the setting as a process starts, so this comes before all else; process id, arguments and open files stay. A
    setting of the user's own is left alone.
    """
    settings = os.environ.get("GLIBC_TUNABLES", "")
    if HUGE_PAGES in settings or not sys.executable or not gains_by_huge_pages():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [settings, f"{HUGE_PAGES}=1"]))
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def gains_by_huge_pages() -> bool:
    """Whether this machine computes on its CPU, and gives huge pages to programs that ask, but to no others."""
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35) or GPU.exists():
        return False
    try:
        return "[madvise]" in PAGES.read_text()
    except OSError:
        return False


def collect_seldom() -> None:
    """Let the garbage collector look at new objects less often, and at none when the process ends.

    Tracing a program makes millions of objects that live on: to look at them again and again takes a tenth of the time
    in which a run starts, and to look at them once more at its end takes half a second.
    """
    gc.set_threshold(max(NEW_OBJECTS, gc.get_threshold()[0]))
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


def interrupt_again(hook: Callable) -> Callable:
    """A `sys.unraisablehook` for which Ctrl-C is not over when a callback of a library has swallowed it."""

    def told(unraisable) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(RETURNED_SECONDS, _thread.interrupt_main).start()
        else:
            hook(unraisable)

    return told


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """End quietly when the reader of a pipe has seen enough.

    Raises:
      UserError: standard output takes nothing, such as a file on a full disk.
    """
    try:
        yield
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
    except BrokenPipeError:
        silence()
    except OSError as error:
        if error.filename is not None or error.errno != errno.ENOSPC:
            raise
        silence()
        raise UserError(f"standard output: {error.strerror}") from error


def silence() -> None:
    """Drop what is still in the buffer of standard output: it would fail once more at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
