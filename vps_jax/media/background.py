"""An iterator that works ahead in a thread, so that decoding, the device, and writing run at the same time."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1


class _Failed(NamedTuple):
    error: BaseException


_DONE = object()


def ahead(items: Iterable[T], count: int, stopped: threading.Event | None = None) -> Iterator[T]:
    """The same items in the same order, made by a thread that is up to `count` of them ahead.

    An error of `items` is raised where its item would have come. When the caller stops early, the thread stops at its
    next item and `items` is closed before this iterator is.

    Args:
      items: what is to be made.
      count: how many may wait.
      stopped: is set when the caller stops early; where an item takes long, what makes it looks at it, see `until`.
    """
    ready: queue.Queue = queue.Queue(count)
    stopped = stopped or threading.Event()

    def put(item) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put(item):
                    break
            put(_DONE)
        except BaseException as error:  # whatever it is, it belongs to the caller's thread
            put(_Failed(error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _DONE:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join()


def until(stopped: threading.Event, items: Iterable[T]) -> Iterator[T]:
    """The items up to the moment at which `stopped` is set."""
    for item in items:
        if stopped.is_set():
            return
        yield item
