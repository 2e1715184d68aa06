"""Masks as products of features and queries, and label maps as tables over ids."""

import jax
import jax.numpy as jnp


def mask_logits(features, embeds):
    """`<features, embeds>` in float32: features `[b, ..., c]`, embeds `[b, q, c]` -> `[b, ..., q]`."""
    return jnp.einsum("b...c,bqc->b...q", features, embeds, preferred_element_type=jnp.float32)


def look_up(ids, table, outside: int):
    """Replace every id by its row of the sample's table.

    Args:
      ids: integer `[b, ...]`.
      table: `[b, v]`.
      outside: value of an id that the table does not have.

    Returns:
      `[b, ...]` of the table's type.
    """
    ids = ids.astype(jnp.int32)
    ids = jnp.where(ids < 0, table.shape[1], ids)  # a negative index would count from the end
    return jax.vmap(lambda t, i: t.at[i].get(mode="fill", fill_value=outside))(table, ids)


def ids_present(ids, count: int):
    """Which of the ids 1..count have a pixel: ids `[b, ...]` -> bool `[b, count]`."""
    ids = jnp.clip(ids.reshape(ids.shape[0], -1).astype(jnp.int32), 0, count + 1)  # 0 and count + 1 take the others
    return jax.vmap(lambda i: jnp.zeros(count + 2, bool).at[i].set(True))(ids)[:, 1:-1]


def quarter(flags):
    """Shrink a bool map by four: on where more than half of the centre 2x2 of each 4x4 block is on.

    `[..., h, w]` -> `[..., h4, w4]`; the published bilinear resize of the ignore map, cut at 0.5 (spec: tarvis 6.3).
    """
    count = sum(flags[..., i::4, j::4].astype(jnp.int32) for i in (1, 2) for j in (1, 2))
    return count > 2
