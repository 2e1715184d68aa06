"""Serves the page on this machine, with the results of its runs beside it; nothing outside is asked for anything."""

import ipaddress
import os
import pathlib
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vps_jax.app.jobs import Jobs
from vps_jax.media.run_state import stop_on_sigterm
from vps_jax.runs.inference_request import tasks_of
from vps_jax.runs.segmenter import load
from vps_jax.types import UserError

SECONDS_TO_CLOSE = 2  # for the connections of open pages


def serve(
    checkpoint: pathlib.Path, *, weights: str = "ema", host: str, port: int, ready: Callable[[str], None],
) -> None:  # fmt: skip
    """Show the page of a checkpoint until SIGINT or SIGTERM comes; everything that was uploaded is removed then.

    Args:
      checkpoint: see `segmenter.load`.
      weights: `ema` or `raw`.
      host: address on which the page answers; others than those of this machine alone cause a warning.
      port: 0 for any that is free.
      ready: told where the page is.

    Raises:
      UserError: no checkpoint, or the address is not to be had.
      ModuleNotFoundError: gradio is not installed.
    """
    with stop_on_sigterm(True), tempfile.TemporaryDirectory(prefix="vps_jax_app_") as name:
        folder = pathlib.Path(name).resolve()
        # gradio reads these when it is imported
        os.environ.update(GRADIO_TEMP_DIR=str(folder / "uploads"), GRADIO_ANALYTICS_ENABLED="False")
        from vps_jax.app import page

        with listening(host, port) as listener:
            first = load(checkpoint, weights=weights)
            tasks = offered(first.infer)
            jobs = Jobs(lambda task: load(checkpoint, weights=weights, task=task), folder)
            _ = jobs.segmenter(
                tasks[0]
            ).predictor  # what is wrong with the weights is said before anybody waits for them
            title = f"{checkpoint.resolve().name} ({first.experiment.model.name})"
            app = page.site(jobs, title=title, tasks=tasks, classes=first.classes, hosts=hosts(host))
            try:
                ready(f"{title} is shown at {url(listener, host)}; Ctrl-C ends it")
                run(app, listener)
            finally:
                jobs.close()


def offered(infer: Any) -> list[str]:
    """The tasks to choose from, the model's own first; without the one for which objects must be shown."""
    names = tasks_of(infer)
    return sorted((task for task in names if task != "vos"), key=lambda task: names[task] != infer.task)


def run(app, listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM comes."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_CLOSE)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on an address.

    Raises:
      UserError: it is not to be had.
    """
    if not is_loopback(host):
        warnings.warn(f"--host {host}: whoever reaches this address can upload videos and see results", stacklevel=2)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host} --port {port}: cannot be listened on ({reason}); choose another port, 0 for any"
        ) from None
    with listener:
        yield listener


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hosts(host: str) -> list[str]:
    """The names under which the page may be asked for: a foreign page may give this machine a name of its own."""
    return ["localhost", "127.0.0.1", "[::1]", host] if is_loopback(host) else ["*"]


def url(listener: socket.socket, host: str) -> str:
    """Where the page is."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
