"""Shapes in annotations, `Float[Array, "b h w c"]`: jaxtyping's words, which the tests check while they run.

A machine that only trains needs no jaxtyping; there the annotations say nothing.
"""

from typing import Any

try:
    from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, Integer, Shaped
except ModuleNotFoundError:

    class _Unchecked:
        """Stands for every kind of array, of any shape."""

        def __class_getitem__(cls, item: Any) -> Any:
            return Any

    Bool = Float = Float32 = Float64 = Int32 = Int64 = Integer = Shaped = _Unchecked

__all__ = ["Bool", "Float", "Float32", "Float64", "Int32", "Int64", "Integer", "Shaped"]
