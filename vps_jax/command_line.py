"""A command and its process: Ctrl-C that a library swallows, a standard output that takes nothing, the collector."""

import _thread
import atexit
import contextlib
import errno
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator

from vps_jax.types import UserError

RETURNED_SECONDS = 0.05  # after which a callback has returned
NEW_OBJECTS = 100_000  # after which the garbage collector looks at them; Python's own number is 700


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
