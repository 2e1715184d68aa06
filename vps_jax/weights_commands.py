"""The commands `vps-jax weights`: published checkpoints by name."""

import pathlib
from typing import Annotated

import typer

weights = typer.Typer(rich_markup_mode=None, help="Published checkpoints by name.")


@weights.command("list")
def list_weights():
    """List the published checkpoints; those in the cache have a star.

    Example: vps-jax weights list
    """
    from vps_jax.runs import published

    print("\n".join(published.table()))


@weights.command()
def get(
    name: Annotated[str, typer.Argument(help="As `vps-jax weights list` shows it.")],
    output: Annotated[
        pathlib.Path | None, typer.Option("--output", help="New folder; default one in the cache.")
    ] = None,
):
    """Fetch a published checkpoint, check and convert it; the folder that it prints serves as --checkpoint.

    Example: vps-jax weights get videomt_large_vipseg
    """
    from vps_jax.runs import published

    print(published.get(name, output))
