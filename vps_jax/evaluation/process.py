"""How a process that scores behaves towards the system: signals and what libraries print."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def tidy() -> Iterator[None]:
    """End by SIGTERM as by an exception, so that workers end and no partial file stays; and print only our own lines.

    For the main thread of a command. The exit code is then 143, as a shell names a process that SIGTERM ended.
    """
    before = signal.signal(signal.SIGTERM, _terminated)
    stderr, kept = sys.stderr, os.dup(2)
    try:
        with open(kept, "w", buffering=1, errors="backslashreplace") as ours:
            sys.stderr = ours if stderr is sys.__stderr__ else stderr
            silence_libraries()
            try:
                yield
            finally:
                os.dup2(kept, 2)
    finally:
        sys.stderr = stderr
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame) -> None:
    sys.exit(128 + number)


def silence_libraries() -> None:
    """Lines that C libraries print by themselves (libpng does) are nothing to the user: our own message names all."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
