"""Deformable attention in PyTorch, in two forms: the baselines of ours. Needs torch.

Arguments are those of `vps_jax.ops.deformable_attention`: value `[b, s, m, c]`, locations `[b, q, m, l, p, 2]`, weights
`[b, q, m, l, p]` as tensors; both return `[b, q, m, c]`.
"""

import torch


def level_by_level(value, locations, weights, shapes):
    """One `grid_sample` per level, weighted and summed at once."""
    batch, queries, heads, _, points = weights.shape
    out = 0
    for i, samples in enumerate(_samples(value, locations, shapes)):
        weight = weights[:, :, :, i].transpose(1, 2).reshape(batch * heads, 1, queries, points)
        out = out + (samples * weight).sum(-1)
    return _by_query(out, batch, heads)


def all_levels(value, locations, weights, shapes):
    """The form without a compiled extension that Deformable DETR and its followers fall back to: the samples of all
    levels side by side, multiplied by the weights and summed."""
    batch, queries, heads, levels, points = weights.shape
    samples = torch.cat(list(_samples(value, locations, shapes)), dim=-1)  # [b m, c, q, l p]
    weight = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    return _by_query((samples * weight).sum(-1), batch, heads)


FORMS = {"torch grid_sample": level_by_level, "published torch form": all_levels}


def _samples(value, locations, shapes):
    """Per level `[b m, c, q, p]`; `grid_sample` counts from -1 to 1."""
    batch, _, heads, channels = value.shape
    for i, image in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        image = image.permute(0, 2, 3, 1).reshape(batch * heads, channels, *shapes[i])
        grid = 2 * locations[:, :, :, i].transpose(1, 2).flatten(0, 1) - 1  # [b m, q, p, 2]
        yield torch.nn.functional.grid_sample(image, grid, align_corners=False)


def _by_query(out, batch: int, heads: int):
    """`[b m, c, q]` to `[b, q, m, c]`."""
    return out.reshape(batch, heads, *out.shape[1:]).permute(0, 3, 1, 2)
