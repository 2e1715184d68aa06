"""What a computation costs at least: its products counted in the traced program, its bytes from shapes."""

from typing import NamedTuple

from vps_jax.train.counting import flop, size_in_bytes

__all__ = ["Floor", "flop", "size_in_bytes"]


class Floor(NamedTuple):
    """Counted work: `flop` of products and convolutions, two for a multiplication with its addition; `byte` moved."""

    flop: float
    byte: float = 0.0

    def seconds(self, flop_per_second: float, byte_per_second: float) -> float:
        """The longer of arithmetic and memory at these rates."""
        return max(self.flop / flop_per_second, self.byte / byte_per_second)
