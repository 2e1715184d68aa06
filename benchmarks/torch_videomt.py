"""VidEoMT's forward pass in PyTorch, written from docs/reference/videomt.md: the baseline of ours. Needs torch.

Products are `linear` with queries, keys and values in one, attention is `scaled_dot_product_attention`, and the trunk
and the heads see all frames as one batch. Convolutions run in channels-last memory, or in PyTorch's own order of axes,
as the published code leaves them.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class TorchVidEoMT:
    """The network with the weights of ours.

    Attributes:
      heads: of the attention.
      eps: of the norms of tokens.
      patch: side of a patch, pixels.
      upscales: doublings of the patch grid.
      memory: order of the axes of maps in memory.
    """

    def __init__(
        self, params: Mapping, *, heads: int, eps: float, patch: int, upscales: int, channels_last: bool = True
    ):
        """`params`: tree of arrays of `models.videomt.VidEoMT` with a position table."""
        self.heads, self.eps, self.patch, self.upscales = heads, eps, patch, upscales
        self.memory = torch.channels_last if channels_last else torch.contiguous_format
        trunk, ends = params["trunk"], params["heads"]
        self.embed = convolution(trunk["patch_embed"]["proj"], self.memory)
        self.first = tensor(np.concatenate([trunk["cls_token"], trunk["reg_token"]], axis=1))
        self.table = tensor(trunk["pos_embed"])[0]
        self.trunk_blocks, self.query_blocks = blocks(trunk["blocks"]), blocks(params["blocks"])
        self.query, self.updater = tensor(params["query"]), linear(params["query_updater"])
        self.norm = norm(params["norm"])
        self.class_head = linear(ends["class_head"])
        self.mask_head = [linear(ends["mask_head"][f"fc{i}"]) for i in (1, 2, 3)]
        self.upscale = [upscale(ends[f"upscale_{i}"], self.memory) for i in range(upscales)]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray):
        """uint8 `[t, h, w, 3]`, sides multiples of 32, to class logits `[t, q, k + 1]` and masks `[t, q, h4, w4]`."""
        pixels = (torch.from_numpy(images).float() - torch.tensor(MEAN)) / torch.tensor(STD)
        patches = functional.conv2d(pixels.permute(0, 3, 1, 2), *self.embed, stride=self.patch)
        grid = tuple(patches.shape[2:])
        patches = patches.flatten(2).transpose(1, 2) + self.positions(grid)
        tokens = torch.cat([self.first.expand(len(patches), -1, -1), patches], dim=1)
        for block in self.trunk_blocks:
            tokens = self.block(tokens, block)
        states, queries = [], self.query
        for frame in tokens:
            x = torch.cat([queries, frame])[None]
            for block in self.query_blocks:
                x = self.block(x, block)
            queries = functional.linear(x[0, : len(queries)], *self.updater) + self.query
            states.append(x)
        return self.predict(self.normed(torch.cat(states), self.norm), grid)

    def positions(self, grid: tuple[int, int]):
        """The position table `[h w, c]` for a grid."""
        side = round(len(self.table) ** 0.5)
        if grid == (side, side):
            return self.table
        maps = self.table.T.reshape(1, -1, side, side)
        resized = functional.interpolate(maps, grid, mode="bicubic", antialias=True, align_corners=False)
        return resized[0].flatten(1).T

    def block(self, x, p):
        """`[b, n, c]` to the same."""
        b, n, c = x.shape
        qkv = functional.linear(self.normed(x, p["norm1"]), *p["qkv"]).view(b, n, 3, self.heads, c // self.heads)
        attended = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))  # [b, m, n, d]
        x = x + p["gamma1"] * functional.linear(attended.transpose(1, 2).reshape(b, n, c), *p["proj"])
        hidden = functional.gelu(functional.linear(self.normed(x, p["norm2"]), *p["fc1"]))
        return x + p["gamma2"] * functional.linear(hidden, *p["fc2"])

    def normed(self, x, scale_and_shift):
        return functional.layer_norm(x, x.shape[-1:], *scale_and_shift, self.eps)

    def predict(self, states, grid: tuple[int, int]):
        """Class and mask logits of normed states `[t, s, c]`."""
        t, _, c = states.shape
        vectors = queries = states[:, : len(self.query)]
        for i, layer in enumerate(self.mask_head):
            vectors = functional.linear(functional.gelu(vectors) if i else vectors, *layer)
        maps = states[:, -grid[0] * grid[1] :].reshape(t, *grid, c).permute(0, 3, 1, 2)
        for p in self.upscale:
            maps = maps.contiguous(memory_format=self.memory)
            maps = functional.gelu(functional.conv_transpose2d(maps, *p["up"], stride=2))
            maps = functional.conv2d(maps, p["depthwise"], padding=1, groups=c)
            maps = functional.layer_norm(maps.permute(0, 2, 3, 1), (c,), *p["norm"], 1e-6).permute(0, 3, 1, 2)
        masks = torch.einsum("tqc,thwc->tqhw", vectors, maps.permute(0, 2, 3, 1))
        return functional.linear(queries, *self.class_head), masks


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def linear(p: Mapping):
    """Weight `[out, in]` and bias of a Dense layer."""
    return tensor(np.asarray(p["kernel"]).T), tensor(p["bias"])


def norm(p: Mapping):
    return tensor(p["scale"]), tensor(p["bias"])


def convolution(p: Mapping, memory):
    """Weight `[out, in, h, w]` in that memory and bias of a convolution `[h, w, in, out]`."""
    weight = tensor(np.transpose(p["kernel"], (3, 2, 0, 1))).contiguous(memory_format=memory)
    return weight, tensor(p["bias"])


def upscale(p: Mapping, memory) -> dict:
    up = tensor(np.transpose(p["up"]["kernel"], (0, 3, 1, 2))).contiguous(memory_format=memory)
    depthwise = tensor(np.transpose(p["depthwise"]["kernel"], (3, 2, 0, 1)))
    return {"up": (up, tensor(p["up"]["bias"])), "depthwise": depthwise, "norm": norm(p["norm"])}


def blocks(stacked: Mapping) -> list[dict]:
    """Blocks one by one from arrays with a leading axis over them."""
    found = []
    for i in range(len(stacked["gamma1"])):
        part = lambda tree, i=i: {name: np.asarray(leaf)[i] for name, leaf in tree.items()}  # noqa: E731
        p = {name: linear(part(stacked["attn"][name])) for name in ("qkv", "proj")}
        p |= {name: linear(part(stacked[name])) for name in ("fc1", "fc2")}
        p |= {name: norm(part(stacked[name])) for name in ("norm1", "norm2")}
        p |= {name: tensor(np.asarray(stacked[name])[i]) for name in ("gamma1", "gamma2")}
        found.append(p)
    return found
