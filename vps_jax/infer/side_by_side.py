"""Several devices in one process: each has a predictor and a thread, which takes the next video when it is free."""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, TypeVar

import jax

from vps_jax.types import UserError

T, R = TypeVar("T"), TypeVar("R")
ALL = "all"


def devices(asked: int | str) -> list[jax.Device]:
    """The first `asked` devices of this process, or `all` of them.

    Raises:
      UserError: it is neither a number above 0 nor `all`, or there are fewer.
    """
    found = jax.local_devices()
    if asked == ALL:
        return found
    count = int(asked) if str(asked).isdecimal() else 0
    if count < 1:
        raise UserError(f"--devices {asked}: expected a number above 0, or all")
    if count > len(found):
        raise UserError(
            f"--devices {asked}: there are {len(found)} of the kind {found[0].device_kind}; "
            f"expected at most {len(found)}, or all"
        )
    return found[:count]


def on_devices(make: Callable[[Any], Any], variables: Any, asked: int | str) -> list[Any]:
    """What `make` makes of the variables, once on each device; what is computed from them stays on theirs.

    Args:
      make: takes the variables.
      variables: arrays, on the host so far.
      asked: see `devices`.
    """
    chosen = devices(asked)
    if len(chosen) == 1:
        return [make(variables)]
    return [make(jax.device_put(variables, device)) for device in chosen]


def share(items: Sequence[T], workers: Sequence[Callable[[T], R]], stopped: threading.Event) -> list[R]:
    """What the workers make of the items, in the order of the items; a worker that is free takes the next one.

    One worker runs in the caller's thread, several run in threads of their own.

    Args:
      items: to be done.
      workers: see `stopped`.
      stopped: set after the first error, and when the caller is interrupted. The workers end soon then: they look at
        it. All of them have ended when this function does.

    Raises:
      the first error of a worker.
    """
    if len(workers) == 1:
        return [workers[0](item) for item in items]
    numbers, results = itertools.count(), {}  # a count gives each number to one thread

    def work(worker: Callable[[T], R]) -> None:
        while not stopped.is_set() and (i := next(numbers)) < len(items):
            results[i] = worker(items[i])

    with futures.ThreadPoolExecutor(len(workers)) as pool:
        try:
            for job in futures.as_completed([pool.submit(work, worker) for worker in workers]):
                job.result()
        except BaseException:
            stopped.set()
            raise
    return [results[i] for i in range(len(items))]
