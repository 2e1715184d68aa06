"""Signals that end a run: the first one asks for a checkpoint at the next step, a second one ends at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # of a scheduler, and of Ctrl-C
SIGNALED = 128  # exit codes are this plus the signal's number


class Stop:
    """What the signals asked for.

    Nothing is raised in the handler while steps run: an exception there is lost when it hits a callback of the garbage
    collector.
    """

    def __init__(self):
        self.signal: int | None = None
        self._evaluating = False

    @property
    def exit_code(self) -> int:
        """That of a process which a signal ended."""
        return SIGNALED + (self.signal or signal.SIGTERM)

    def asked(self, done: int) -> bool:
        """Whether to save and stop after so many steps; several processes agree on a step that all of them reach."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(done)
        return self.signal is not None

    def receive(self, number: int, _) -> None:
        """The handler."""
        if self.signal is not None:
            os._exit(SIGNALED + number)
        self.signal = number
        if self._evaluating:  # its step is saved, and is evaluated when the run goes on
            raise SystemExit(self.exit_code)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """A phase in which child processes start: a signal to the whole group ends them before they can ignore it."""
        try:
            yield
        except Exception:
            if self.signal is None:
                raise
            raise SystemExit(self.exit_code) from None

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """A phase that a signal ends in its middle."""
        if self.signal is not None:
            raise SystemExit(self.exit_code)
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Handle the signals while the block runs, on the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # with several processes jax itself waits for SIGTERM, so that all of them stop after the same step
    handlers: dict[int, Callable] = dict.fromkeys(SIGNALS, stop.receive)
    if jax.process_count() > 1:
        handlers = {signal.SIGINT: lambda *_: os.kill(os.getpid(), signal.SIGTERM)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
