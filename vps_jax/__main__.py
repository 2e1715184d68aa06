"""`python -m vps_jax` is the command `vps-jax`."""

from vps_jax.cli import main

main()
