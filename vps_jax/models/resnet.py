"""ResNet-50 backbone with frozen batch norms (spec: tarvis 2).

Use:
  maps = ResNet(SIZES["resnet50"], dtype=jnp.float32).apply(variables, images)
  images `[n, h, w, 3]` normalised floats;
  maps: four `[n, h / s, w / s, channels]` at strides s = 4, 8, 16, 32 with channels 256, 512, 1024, 2048.

The norms' four vectors are no parameters: they live in the variable collection `frozen` beside `params`
(`frozen/.../{scale,bias,mean,var}`), so that no optimizer, weight decay or average touches them. Checkpoints and the
converter carry them like parameters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.initializers import kaiming_fan_out
from vps_jax.models.layers import Maps
from vps_jax.shapes import Float
from vps_jax.types import Array


class ResNetSize(NamedTuple):
    """Blocks per stage, and the width of the first map."""

    blocks: tuple[int, int, int, int]
    width: int

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Widths of the four maps."""
        return tuple(self.width * 2**i for i in range(4))


SIZES = {"resnet50": ResNetSize((3, 4, 6, 3), 256)}


class FrozenBatchNorm(nn.Module):
    """Batch norm with constant statistics and affine vectors, eps 1e-5: one multiplication and one addition."""

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        ones, zeros = (lambda: jnp.ones(c, jnp.float32)), (lambda: jnp.zeros(c, jnp.float32))
        scale, bias = self.variable("frozen", "scale", ones).value, self.variable("frozen", "bias", zeros).value
        mean, var = self.variable("frozen", "mean", zeros).value, self.variable("frozen", "var", ones).value
        factor = scale * jax.lax.rsqrt(var + 1e-5)
        return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)


class ConvNorm(nn.Module):
    """Convolution without bias and a frozen norm; padding is symmetric, as in PyTorch (`SAME` differs at stride 2)."""

    features: int
    kernel: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            padding=self.kernel // 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=kaiming_fan_out,
            name="conv",
        )
        return FrozenBatchNorm(name="norm")(conv(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions beside a shortcut, projected in a stage's first block."""

    features: int
    stride: int
    project: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        inner = self.features // 4
        y = nn.relu(ConvNorm(inner, 1, dtype=self.dtype, name="conv1")(x))
        y = nn.relu(ConvNorm(inner, 3, self.stride, dtype=self.dtype, name="conv2")(y))
        y = ConvNorm(self.features, 1, dtype=self.dtype, name="conv3")(y)
        if self.project:
            x = ConvNorm(self.features, 1, self.stride, dtype=self.dtype, name="shortcut")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """The backbone; see the module docstring. Nothing in it is random or differs between training and evaluation."""

    size: ResNetSize
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"], *, train: bool = False) -> Maps:
        """Args: images `[n, h, w, 3]`; train is there for a backbone's common signature. Returns: four maps."""
        del train
        x = nn.relu(ConvNorm(self.size.width // 4, 7, 2, self.dtype, name="stem")(images))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        maps = []
        for i, blocks in enumerate(self.size.blocks):
            for j in range(blocks):
                stride = 2 if i and j == 0 else 1
                x = Bottleneck(self.size.channels[i], stride, j == 0, self.dtype, name=f"res{i + 2}_{j}")(x)
            maps.append(x)
        return tuple(maps)
