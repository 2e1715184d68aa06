"""The backend that a program is made for: how much an operation does at once depends on it.

It is the one that runs, unless a plan is made for another (`made_for`).
"""

import contextlib
import contextvars

import jax

_PLANNED: contextvars.ContextVar[str | None] = contextvars.ContextVar("planned", default=None)


def backend() -> str:
    """Name of the backend, such as `cpu` or `gpu`."""
    return _PLANNED.get() or jax.default_backend()


@contextlib.contextmanager
def made_for(name: str):
    """Programs that are traced inside are those of another backend; they can be looked at, but not run."""
    token = _PLANNED.set(name)
    try:
        yield
    finally:
        _PLANNED.reset(token)
