"""Initial values of the published PyTorch systems, by the names of the rules."""

import jax
import jax.numpy as jnp
from flax import linen as nn

normal = nn.initializers.normal(1.0)  # of learned queries and embeddings
xavier = nn.initializers.xavier_uniform()
torch_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # of PyTorch's Linear and Conv2d
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # of convolutions before a relu
kaiming_uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")  # with a = 1, as Caffe2 had it
linear_init = nn.initializers.normal(0.02)  # of ViT's linear layers; published: cut off at 2, a hundred deviations


def torch_bias(fan_in: int):
    """Bias of PyTorch's Linear: uniform within 1/sqrt(fan_in)."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def packed_xavier(key, shape, dtype=jnp.float32):
    """Xavier-uniform of one third of a packed `[3 c, c]` projection: the bound of the packed matrix."""
    bound = (6.0 / (shape[0] + 3 * shape[1])) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def pointwise(rule):
    """A convolution's rule for a 1x1 kernel that is a Dense layer's `[in, out]`."""
    return lambda key, shape, dtype=jnp.float32: rule(key, (1, 1, *shape), dtype)[0, 0]
