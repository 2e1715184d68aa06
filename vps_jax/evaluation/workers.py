"""Videos scored by several processes at once.

The calling process scores too, and the others join it as soon as they have started, so that a short job never waits
for them. Each keeps states of its own, which are merged at the end. A worker ends when its parent does, however that
happens, and one that dies names the video it was at.
"""

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from multiprocessing import connection
from typing import NamedTuple

from vps_jax.evaluation import process
from vps_jax.types import UserError

AHEAD = 2  # videos that a worker is given before it has asked for them


class Worker(NamedTuple):
    """A process, the pipe to it, and the videos that it has been given."""

    process: multiprocessing.Process
    pipe: connection.Connection
    given: collections.deque


def run(states: dict, jobs: Iterable, score: Callable, *, processes: int, done: Callable[[], None], start: Callable):
    """Add every job to the states.

    Args:
      states: empty; get everything.
      jobs: with a `video`.
      score: `(states, job)`; can be sent to another process.
      processes: how many, this one among them.
      done: called after each job.
      start: `() -> states`, empty ones for a worker; can be sent to another process.

    Raises:
      UserError: from a job, or a worker died.
    """
    jobs = collections.deque(jobs)
    count = min(processes - 1, max(len(jobs) - 1, 0))
    workers = _start(count, score, start)
    try:
        while jobs:
            for worker in workers:
                while jobs and len(worker.given) < AHEAD:
                    _give(worker, jobs.popleft())
            if jobs:
                score(states, jobs.popleft())
                done()
            _collect([worker for worker in workers if worker.given], done, timeout=0)
        while busy := [worker for worker in workers if worker.given]:
            _collect(busy, done, timeout=None)
        for worker in workers:
            worker.pipe.send(None)
            _merge(states, _receive(worker))
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _start(count: int, score: Callable, start: Callable) -> list[Worker]:
    """Processes are spawned: the caller may hold threads of its own."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for _ in range(count):
        ours, theirs = context.Pipe()
        one = context.Process(target=_work, args=(theirs, score, start), daemon=True)
        one.start()
        theirs.close()  # so that the worker's end tells us by the pipe
        workers.append(Worker(one, ours, collections.deque()))
    return workers


def _give(worker: Worker, job) -> None:
    worker.given.append(job.video)
    try:
        worker.pipe.send(job)
    except OSError:
        raise _died(worker) from None


def _collect(workers: list[Worker], done: Callable[[], None], *, timeout: float | None) -> None:
    """Take what has come; None waits until something has."""
    ready = connection.wait([worker.pipe for worker in workers], timeout)
    for worker in workers:
        if worker.pipe in ready:
            _receive(worker)
            worker.given.popleft()
            done()


def _receive(worker: Worker):
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        raise _died(worker) from None
    if isinstance(message, Exception):
        raise message
    return message


def _died(worker: Worker) -> UserError:
    worker.process.join(10)
    code = worker.process.exitcode
    how = f"signal {-code} ({signal.Signals(-code).name})" if code is not None and code < 0 else f"exit code {code}"
    at = f"video {worker.given[0]}" if worker.given else "the last video"
    return UserError(f"{at}: the process that scored it died ({how}); free memory or use fewer processes, run again")


def _merge(states: dict, others: dict) -> None:
    for name, state in states.items():
        state.merge(others[name])


def _work(pipe: connection.Connection, score: Callable, start: Callable) -> None:
    """What a worker does until it is told None: score, say so; then hand its states over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    process.silence_libraries()
    states = start()
    while (job := pipe.recv()) is not None:
        try:
            score(states, job)
        except Exception as error:
            pipe.send(error)
            return
        pipe.send(None)
    pipe.send(states)


def _end_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
