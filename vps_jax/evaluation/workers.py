"""Videos scored by several processes at once.

The calling process scores too, and the others join it when they have started, so that a short run never waits for
them. Each keeps states of its own, which are merged at the end. A worker ends when its parent does, however that
happens, and one that dies names the video it was at.
"""

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from multiprocessing import connection

from vps_jax.evaluation import process
from vps_jax.types import UserError

AHEAD = 2  # videos that a worker has at a time, so that it need not wait for the next


class Worker:
    """A process, and the names of the videos that it has been given and has not scored yet."""

    def __init__(self, score: Callable, start: Callable):
        context = multiprocessing.get_context("spawn")  # the caller may hold threads of its own
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, score, start), daemon=True)
        self.process.start()
        theirs.close()  # so that the worker's end tells us by the pipe
        self.given: collections.deque = collections.deque()
        self.joined = False  # it has started, and is worth waiting for

    def feed(self, jobs: collections.deque, done: Callable[[], None]) -> dict:
        """Give it jobs until there are none, and return its states; runs in a thread of its own.

        Raises:
          UserError: from a job, or the process died.
        """
        self.receive()
        self.joined = True
        while True:
            while len(self.given) < AHEAD and (job := _next(jobs)) is not None:
                self.given.append(job.video)
                self.send(job)
            if not self.given:
                break
            self.receive()
            self.given.popleft()
            done()
        self.send(None)
        return self.receive()

    def send(self, message) -> None:
        """Raises UserError when the process has died."""
        try:
            self.pipe.send(message)
        except OSError:
            raise self._died() from None

    def receive(self):
        """The next message; raises what went wrong there, and UserError when the process has died."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if isinstance(message, Exception):
            raise message
        return message

    def _died(self) -> UserError:
        self.process.join(10)
        code = self.process.exitcode
        signaled = code is not None and code < 0
        how = f"signal {-code} ({signal.Signals(-code).name})" if signaled else f"exit code {code}"
        if not self.joined:
            return UserError(f"a process could not start ({how}); a script that scores in several needs a main guard")
        at = f"video {self.given[0]}: the process that scored it" if self.given else "a process that had scored all"
        return UserError(f"{at} died ({how}); free memory or use fewer processes, and run again")

    def end(self) -> None:
        """End it, whatever it is at."""
        self.process.kill()
        self.process.join()


def run(states: dict, jobs: Iterable, score: Callable, *, processes: int, done: Callable[[], None], start: Callable):
    """Add every job to the states.

    Args:
      states: empty; get everything.
      jobs: with a `video`.
      score: `(states, job)`; can be sent to another process.
      processes: how many, this one among them.
      done: called after each job, from any thread.
      start: `() -> states`, empty ones for a worker; can be sent to another process.

    Raises:
      UserError: from a job, or a worker died.
    """
    jobs = collections.deque(jobs)
    workers = [Worker(score, start) for _ in range(min(processes, len(jobs)) - 1)]
    with futures.ThreadPoolExecutor(max(len(workers), 1)) as threads:
        try:
            fed = [threads.submit(worker.feed, jobs, done) for worker in workers]
            while (job := _next(jobs)) is not None:
                score(states, job)
                done()
                for one in fed:
                    if one.done():
                        one.result()  # raises what went wrong there
            for worker, one in zip(workers, fed, strict=True):
                if worker.joined or one.done():
                    _merge(states, one.result())
        finally:
            jobs.clear()
            for worker in workers:
                worker.end()


def _next(jobs: collections.deque):
    """The next job, or None; several threads take from the same jobs."""
    try:
        return jobs.popleft()
    except IndexError:
        return None


def _merge(states: dict, others: dict) -> None:
    for name, state in states.items():
        state.merge(others[name])


def _work(pipe: connection.Connection, score: Callable, start: Callable) -> None:
    """What a worker does until it is told None: say that it is ready, score, say so; then hand its states over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    process.silence_libraries()
    states = start()
    pipe.send(None)
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
