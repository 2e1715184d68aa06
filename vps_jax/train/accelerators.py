"""GPUs by name: memory and peak rates as their maker publishes them, to plan a run with.

Rates are those of dense products on tensor cores that add in float32: half of what data sheets print "with sparsity".
float32 products run as TF32, which is what jax asks for on these cards. Source: NVIDIA's data sheets of each card, and
the white papers of GA102 and AD102 for the two of the RTX series.
"""

from typing import NamedTuple

from vps_jax.types import UserError

REACHED = 0.7  # share of the peak that large products reach in practice (spec: performance 1)


class Gpu(NamedTuple):
    """Memory in bytes, and peak FLOP/s of products of bfloat16 and of float32 numbers."""

    memory: float
    bfloat16: float
    float32: float

    def seconds(self, flop: dict[str, float]) -> float:
        """The least time for counted arithmetic, by the type of what is multiplied; memory traffic is left out."""
        rates = {"bfloat16": self.bfloat16, "float16": self.bfloat16}
        return sum(count / (REACHED * rates.get(dtype, self.float32)) for dtype, count in flop.items())


GPUS = {
    "a10": Gpu(24e9, 125e12, 62.5e12),
    "a40": Gpu(48e9, 149.7e12, 74.8e12),
    "a100_40gb": Gpu(40e9, 312e12, 156e12),
    "a100": Gpu(80e9, 312e12, 156e12),
    "rtx3090": Gpu(24e9, 71e12, 35.6e12),
    "rtx4090": Gpu(24e9, 165.2e12, 82.6e12),
    "rtx_a6000": Gpu(48e9, 154.8e12, 77.4e12),
    "l40s": Gpu(48e9, 362e12, 183e12),
    "h100_pcie": Gpu(80e9, 756e12, 378e12),
    "h100": Gpu(80e9, 989.4e12, 494.7e12),
    "h200": Gpu(141e9, 989.4e12, 494.7e12),
}


def gpu(name: str) -> Gpu:
    """The row of a card.

    Raises:
      UserError: an unknown name.
    """
    if name not in GPUS:
        raise UserError(f"gpu {name!r}: expected one of {', '.join(GPUS)}")
    return GPUS[name]
