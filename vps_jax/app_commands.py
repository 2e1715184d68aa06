"""`vps-jax app`: a local web page that segments videos."""

import pathlib
from typing import Annotated

import typer

from vps_jax.types import UserError

Text = typer.Option


def app(
    checkpoint: Annotated[
        pathlib.Path | None, Text("--checkpoint", help="Workdir, or one step in its checkpoints/.")
    ] = None,
    weights: Annotated[str | None, Text("--weights", help="ema or raw of --checkpoint, or a published name.")] = None,
    port: Annotated[int, Text("--port", min=0, max=65535, help="Port; 0: any that is free.")] = 7860,
    host: Annotated[str, Text("--host", help="Address; the default is reached from this machine alone.")] = "127.0.0.1",
):
    """Show a web page on this machine: upload videos, watch them being segmented, look at the results, download them.

    Example: vps-jax app --checkpoint runs/tiny
    """
    from vps_jax.app import server
    from vps_jax.runs import published

    checkpoint, weights = published.chosen(weights, checkpoint)
    if checkpoint is None:
        raise UserError("neither of --checkpoint and --weights NAME; give one of them")
    server.serve(checkpoint, weights=weights, host=host, port=port, ready=lambda line: print(line, flush=True))
