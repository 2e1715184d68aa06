"""Where class tables were before `vps_jax.datasets`; rooms that still ask here are moved one by one."""

from vps_jax.datasets.classes import ClassTable, class_table

__all__ = ["ClassTable", "categories", "class_table"]


def categories(name: str) -> tuple[dict, ...]:
    """Rows of a class table, `{id, name, isthing, color}` each."""
    return tuple(class_table(name).rows())
