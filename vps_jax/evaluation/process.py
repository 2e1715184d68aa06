"""How a process that scores behaves towards the system: signals and what libraries print."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def tidy() -> Iterator[None]:
    """End by SIGTERM as by an exception, so that workers end and no partial file stays; and print only our own lines.

    The exit code is then 143, as a shell names a process that SIGTERM ended. Only the main thread can take signals.
    """
    with contextlib.ExitStack() as undo:
        if threading.current_thread() is threading.main_thread():
            undo.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _terminated))
        with contextlib.suppress(OSError):  # there may be no standard error at all
            ours = undo.enter_context(open(os.dup(2), "w", buffering=1, errors="backslashreplace"))
            if sys.stderr is sys.__stderr__:
                undo.callback(setattr, sys, "stderr", sys.stderr)
                sys.stderr = ours
            undo.callback(os.dup2, ours.fileno(), 2)
            silence_libraries()
        yield


def watched() -> bool:
    """Whether somebody looks at standard error, which may be closed."""
    return sys.stderr is not None and sys.stderr.isatty()


def _terminated(number: int, frame) -> None:
    sys.exit(128 + number)


def silence_libraries() -> None:
    """Lines that C libraries print by themselves (libpng does) are nothing to the user: our own message names all."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
