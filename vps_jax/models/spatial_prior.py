"""The convolutional side of ViT-Adapter: batch normalisation as PyTorch counts it, and the spatial prior module."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.initializers import kaiming_fan_out, pointwise
from vps_jax.models.layers import Dense, Maps
from vps_jax.shapes import Float
from vps_jax.types import Array


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's running statistics.

    Normalises with the biased variance and keeps the unbiased one (`n / (n - 1)`), which flax's does not. Under `jit`
    the batch is the global one, whatever the number of devices: what the published models call SyncBN
    (spec: vit_adapter 1, 4). Statistics are float32.

    Attributes:
      momentum: share of the new batch in the running statistics.
      epsilon: added to the variance.
      dtype: of the result.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool):
        """Args: x `[..., c]`. In training the collection `batch_stats` must be mutable to be kept."""
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (width,))
        bias = self.param("bias", nn.initializers.zeros_init(), (width,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (width,))
        x = x.astype(jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            var = jnp.square(x - mean).mean(axes)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                count = x.size // width
                new = self.momentum
                running_mean.value = (1 - new) * running_mean.value + new * mean
                running_var.value = (1 - new) * running_var.value + new * var * (count / max(count - 1, 1))
        return ((x - mean) * (scale / jnp.sqrt(var + self.epsilon)) + bias).astype(self.dtype)


class ConvNormReLU(nn.Module):
    """3x3 convolution without bias, batch norm, ReLU."""

    width: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool):
        pads = ((1, 1), (1, 1))  # flax's SAME pads a strided convolution at the far side only
        x = nn.Conv(
            self.width,
            (3, 3),
            strides=self.stride,
            padding=pads,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=kaiming_fan_out,
            name="conv",
        )(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="norm")(x, train=train))


class SpatialPrior(nn.Module):
    """Local detail at strides 4, 8, 16 and 32 from the image itself (spec: vit_adapter 4).

    Attributes:
      width: channels of the result.
      inner: channels of the stem; later stages have 2, 4 and 4 times as many.
    """

    width: int
    inner: int = 64
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Maps:
        """Normalised images `[b, h, w, 3]` to four maps `[b, h/s, w/s, c]`, s = 4, 8, 16, 32."""
        x = images
        for i, stride in enumerate((2, 1, 1)):
            x = ConvNormReLU(self.inner, stride, self.dtype, name=f"stem_{i}")(x, train=train)
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        maps = [x]
        for i, times in ((2, 2), (3, 4), (4, 4)):
            x = ConvNormReLU(times * self.inner, 2, self.dtype, name=f"conv{i}")(x, train=train)
            maps.append(x)
        # 1x1 convolutions
        return [
            Dense(self.width, dtype=self.dtype, kernel_init=pointwise(kaiming_fan_out), name=f"fc{i + 1}")(m)
            for i, m in enumerate(maps)
        ]
