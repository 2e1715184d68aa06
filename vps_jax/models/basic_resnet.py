"""A narrow ResNet of basic blocks with group norms, to train from random weights on a CPU [ours].

Use:
  maps = BasicResNet(SIZES["resnet_micro"], dtype=jnp.float32).apply(variables, images)
  images `[n, h, w, 3]` normalised floats;
  maps: four `[n, h / s, w / s, channels]` at strides s = 4, 8, 16, 32 with channels 32, 64, 128, 256.

ResNet-50's frozen norms need pretrained weights, and a Swin this small spends its time on memory: per pixel a train
step of `resnet_micro` takes 0.6 of the time of `swin_micro` on one core, at several times the arithmetic.
Group norms see one frame at a time, so a frame's maps depend neither on the batch nor on the mode.
"""

from flax import linen as nn
from jax import numpy as jnp
from jax.typing import DTypeLike

from vps_jax.models.initializers import kaiming_fan_out
from vps_jax.models.layers import GroupNorm, Maps
from vps_jax.models.resnet import ResNetSize
from vps_jax.shapes import Float
from vps_jax.types import Array

SIZES = {"resnet_micro": ResNetSize((2, 2, 2, 2), 32)}  # a width that is a multiple of 16, for 8 groups of its half


class ConvNorm(nn.Module):
    """Convolution without bias, and a group norm of 8 groups whose scale starts from `scale`."""

    features: int
    kernel: int = 3
    stride: int = 1
    scale: float = 1.0
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
        start = nn.initializers.constant(self.scale)
        return GroupNorm(num_groups=8, scale_init=start, dtype=self.dtype, name="norm")(conv(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride, beside a shortcut, which is projected where the shape changes.

    The branch starts at zero, so that a fresh net is a shallow one.
    """

    features: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        y = nn.relu(ConvNorm(self.features, 3, self.stride, dtype=self.dtype, name="conv1")(x))
        y = ConvNorm(self.features, scale=0.0, dtype=self.dtype, name="conv2")(y)
        if x.shape != y.shape:
            x = ConvNorm(self.features, 1, self.stride, dtype=self.dtype, name="shortcut")(x)
        return nn.relu(x + y)


class BasicResNet(nn.Module):
    """The backbone; see the module docstring. Nothing in it is random or differs between training and evaluation."""

    size: ResNetSize
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"], *, train: bool = False) -> Maps:
        """Args: images `[n, h, w, 3]`; train is there for a backbone's common signature. Returns: four maps."""
        del train
        x = nn.relu(ConvNorm(self.size.width // 2, 3, 2, dtype=self.dtype, name="stem1")(images))
        x = nn.relu(ConvNorm(self.size.width, 3, 2, dtype=self.dtype, name="stem2")(x))
        maps = []
        for i, blocks in enumerate(self.size.blocks):
            for j in range(blocks):
                stride = 2 if i and j == 0 else 1
                x = BasicBlock(self.size.channels[i], stride, self.dtype, name=f"res{i + 2}_{j}")(x)
            maps.append(x)
        return tuple(maps)
