"""Several processes as one run: how they join, whether they want the same, and one end for all."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vps_jax.train.launchers import Layout, layout
from vps_jax.types import UserError

PATIENCE = 300  # seconds that a process waits for the others to come
HEARTBEAT = 20  # seconds without a sign of life after which a process counts as lost
LAST = 5  # seconds that process 0 waits for the others to go
FAILED = "vps_jax/failed"
PROBE = ".shared"


def join() -> None:
    """Join the other processes of this run, if the environment announces any; see `launchers.layout`.

    Raises:
      UserError: the variables do not fit, or the port of process 0 is taken.
    """
    if jax.distributed.is_initialized():
        return
    place = layout(os.environ)
    if place is None:
        return
    if place.process == 0:
        check_port(place)
    with waiting_for_others(place):
        jax.distributed.initialize(
            place.coordinator, place.processes, place.process,
            local_device_ids=None if place.device is None else [place.device], heartbeat_timeout_seconds=HEARTBEAT,
            initialization_timeout=2 * PATIENCE,
        )  # fmt: skip


def check_port(place: Layout) -> None:
    """Raise UserError if process 0 cannot listen: jax would crash there."""
    port = int(place.coordinator.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6).close()
    except OSError as error:
        raise UserError(
            f"process 0 of {place.processes} cannot listen at {place.coordinator} ({error.strerror}); end what uses "
            "the port, or choose another one in JAX_COORDINATOR_ADDRESS"
        ) from None


@contextlib.contextmanager
def waiting_for_others(place: Layout) -> Iterator[None]:
    """Say whom a process waits for, and end it when they do not come: jax would dump core in its own time."""
    us = f"process {place.process} of {place.processes}"

    def say() -> None:
        print(f"{us} waits for the others at {place.coordinator}", file=sys.stderr, flush=True)

    def give_up() -> None:
        line = (
            f"error: {us} met no others at {place.coordinator} in {PATIENCE} seconds; start all of them, each with its "
            "own number, where this address of process 0 can be reached"
        )
        print(line, file=sys.stderr, flush=True)
        os._exit(2)

    timers = [threading.Timer(seconds, action) for seconds, action in ((10, say), (PATIENCE, give_up))]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def check_agreement(config: Any, workdir: pathlib.Path) -> None:
    """Raise UserError, on every process, unless all have one config and see one workdir.

    Args:
      config: as json can hold it.
      workdir: exists on process 0.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [i for i, row in enumerate(digests) if not np.array_equal(row, digests[0])]
    if others:
        raise UserError(f"process {others[0]} has another config than process 0; start all with the same command")
    token = np.frombuffer(secrets.token_bytes(8), np.uint8)
    token = bytes(np.asarray(multihost_utils.broadcast_one_to_all(token), np.uint8)).hex()
    probe = workdir / PROBE
    if jax.process_index() == 0:
        probe.write_text(token)
    multihost_utils.sync_global_devices("probe is written")
    sees = probe.is_file() and probe.read_text() == token
    seen = np.ravel(multihost_utils.process_allgather(np.asarray(sees)))
    if jax.process_index() == 0:
        probe.unlink()
    if not seen.all():
        blind = int(np.flatnonzero(~seen)[0])
        raise UserError(f"process {blind} does not see what process 0 writes in {workdir}; expected a shared folder")


@contextlib.contextmanager
def ending_together(code_of) -> Iterator[None]:
    """An error in one process of a run ends all of them within seconds, with its line.

    Args:
      code_of: exception -> exit code.
    """
    if jax.process_count() == 1:
        yield
        return
    from jax._src import distributed  # jax offers no public way to its key-value store

    client, me = distributed.global_state.client, jax.process_index()
    over = threading.Event()
    threading.Thread(target=watch, args=(client, me, over), daemon=True).start()
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit):  # all processes stopped after the same step
            raise
        if not isinstance(error, UserError):
            traceback.print_exc()
        line = f"error: process {me}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        print(line, file=sys.stderr, flush=True)
        code = code_of(error)
        with contextlib.suppress(Exception):
            client.key_value_set(FAILED, f"{code} {line}")
        leave(me, code)
    finally:
        over.set()


def watch(client, me: int, over: threading.Event) -> None:
    """End this process when another one has failed."""
    while not over.is_set():
        try:
            code, _, line = client.blocking_key_value_get(FAILED, 1000).partition(" ")
        except Exception:  # nothing yet; or process 0 is gone, which jax notices by its heartbeat
            time.sleep(0.2)
            continue
        if not over.is_set() and f"process {me}:" not in line:
            print(line, file=sys.stderr, flush=True)
            leave(me, int(code))
        return


def leave(me: int, code: int) -> None:
    """End this process without asking the others; process 0, which they hold on to, goes last."""
    time.sleep(1 if me else LAST)
    os._exit(code)
