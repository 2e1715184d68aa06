"""A training beside this process, on a CPU: small models leave cores idle while they compile, and between steps.

The other process gets its config as a line on its standard input, which stays open. When it is closed, or when this
process dies, the other one saves its newest state and ends, as at any SIGTERM; the same call later goes on from there.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from vps_jax.config import Experiment
from vps_jax.config import experiment as read_config
from vps_jax.parsing import plain
from vps_jax.runs import experiment
from vps_jax.types import UserError

LOOK_SECONDS = 0.5


@contextlib.contextmanager
def training(config: Experiment, workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Train while the block runs; gives a function that waits for the end and prints what the training printed.

    Args:
      config: the experiment.
      workdir: folder of the run; what it prints goes to `<workdir>.log`.

    Raises:
      UserError: from that function, if the training failed.
    """
    log = workdir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "vps_jax.runs.beside", str(workdir)],
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,  # Ctrl-C is for this process, which then asks the other one to stop
        )  # fmt: skip
    try:
        with contextlib.suppress(BrokenPipeError):  # a process that has failed already; its exit code tells
            process.stdin.write(f"{json.dumps(plain(config))}\n")
            process.stdin.flush()
        yield lambda: follow(process, log)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


def follow(process: subprocess.Popen, log: pathlib.Path) -> None:
    """Print a growing log until its process ends.

    Raises:
      UserError: the process failed.
    """
    with open(log) as lines:
        while True:
            ended = process.poll() is not None  # asked first: what is read after the end is all there is
            for line in lines:
                print(line, end="", flush=True)
            if ended:
                break
            time.sleep(LOOK_SECONDS)
    if process.returncode:
        raise UserError(
            f"a training ended with exit code {process.returncode}, its output is above and in {log}; "
            "mend what it says and start the same command again: it goes on from the last checkpoint"
        )


def main() -> None:
    """The other process."""
    step_back()
    config = read_config(json.loads(sys.stdin.readline()))
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    try:
        experiment.run(config, sys.argv[1])
    except UserError as error:
        sys.exit(f"error: {error}")


def step_back() -> None:
    """Compute only while cores have nothing else to do: somebody waits for the pictures of the first process.

    With a low priority alone (`nice`) its steps took half as long again.
    """
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):  # Linux
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def stop_at_end_of_input() -> None:
    """Not by `sys.stdin`, whose lock this thread would still hold when the process ends."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
