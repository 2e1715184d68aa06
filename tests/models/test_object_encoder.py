"""Counts of pixels per cell against the published lists of pixels, and what the encoder may depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.models.object_encoder import ObjectEncoder, background_counts, nearest, part_counts, with_null
from vps_jax.ops.masked_attention import masked_attention


def listed_parts(mask: np.ndarray, parts: int) -> list[np.ndarray]:
    """The published lists: pixels in (t, y, x) raster order, repeated when there are too few, cut by tensor_split."""
    pixels = np.argwhere(mask)
    if 0 < len(pixels) < parts:
        pixels = np.concatenate([pixels] * -(-parts // len(pixels)))
    return np.array_split(pixels, parts)


def counts_of(lists, shape) -> np.ndarray:
    """How often each stride-4 cell occurs in each list, `[lists, cells]`."""
    r, h, w = shape
    out = np.zeros((len(lists), r, h // 4, w // 4))
    for row, pixels in zip(out, lists, strict=True):
        for t, y, x in pixels:
            row[t, y // 4, x // 4] += 1
    return out.reshape(len(lists), -1)


@pytest.mark.parametrize("parts", [4, 8])
def test_part_counts_equal_the_published_lists(parts):
    random = np.random.default_rng(0)
    masks = random.random((2, 4, 2, 8, 12)) < 0.2
    masks[0, 1] = False  # empty
    masks[0, 2] = False
    masks[0, 2, 1, 3, 4:9] = True  # five pixels
    masks[1, 0] = False
    masks[1, 0, 0, 7, 11] = True  # one pixel
    counts = np.asarray(jax.jit(part_counts, static_argnums=1)(masks, parts)).reshape(2, 4, parts, -1)
    for b, n in np.ndindex(2, 4):
        expected = counts_of(listed_parts(masks[b, n], parts), masks.shape[2:])
        np.testing.assert_array_equal(counts[b, n], expected, err_msg=f"{b} {n}")


def test_five_pixels_in_eight_parts():
    """spec: tarvis 4.4: ten entries in parts of 2, 2, 1, 1, 1, 1, 1, 1."""
    mask = np.zeros((1, 1, 1, 4, 8), bool)
    mask[..., 0, :5] = True
    counts = jax.jit(part_counts, static_argnums=1)(mask, 8)
    np.testing.assert_array_equal(counts[0].sum(axis=-1), [2, 2, 1, 1, 1, 1, 1, 1])


def test_background_counts_leave_objects_out():
    masks = np.zeros((1, 2, 2, 16, 32), bool)
    masks[0, 0, 0, :8] = True  # the upper half of the first frame
    masks[0, 1, 1, :, :3] = True
    counts = np.asarray(jax.jit(background_counts)(masks)).reshape(16, 2, 4, 8)
    rows = np.round(np.linspace(-0.499, 3.499, 16)).astype(int)
    columns = np.round(np.linspace(-0.499, 3.499, 32)).astype(int)
    free = ~masks.any(axis=1)[0]
    for k in range(16):
        tile = (rows == k // 4)[:, None] & (columns == k % 4)
        expected = counts_of([np.argwhere(free & tile)], free.shape).reshape(2, 4, 8)
        np.testing.assert_array_equal(counts[k], expected, err_msg=str(k))
    assert counts.sum() == free.sum()


def test_nearest_rounds_half_to_even_and_is_zero_outside():
    maps = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 2, 4, 1)
    points = np.array([[0.1, 0.1], [0.9, 0.9], [0.25, 0.5], [0.25, 0.25], [1.5, 0.5]])[None]
    maps = np.repeat(maps, 5, axis=1)
    # x = 0.5 * 4 - 0.5 = 1.5 -> 2; x = 0.25 * 4 - 0.5 = 0.5 -> 0
    np.testing.assert_array_equal(nearest(maps, points)[0, :, 0], [1, 8, 3, 1, 0])


def test_a_query_without_pixels_gets_the_outside_key():
    counts = with_null(jnp.array([[[0.0, 2.0], [0.0, 0.0]]]))
    np.testing.assert_array_equal(counts, [[[0, 2, 0], [0, 0, 1]]])


def test_counted_keys_equal_repeated_keys():
    random = np.random.default_rng(1)
    q, k, v = (random.standard_normal((1, n, 1, 4)).astype(np.float32) for n in (2, 5, 5))
    counts = np.array([[[2, 0, 1, 3, 0], [0, 0, 0, 1, 4]]], np.float32)
    for chunk in (8, 2):
        out = jax.jit(masked_attention, static_argnames="chunk")(q, k, v, counts, chunk=chunk)
        for i in range(2):
            times = np.repeat(np.arange(5), counts[0, i].astype(int))
            scores = np.exp(k[0, times, 0] @ q[0, i, 0])
            np.testing.assert_allclose(out[0, i, 0], scores / scores.sum() @ v[0, times, 0], rtol=2e-5, atol=1e-6)


@functools.cache
def encoder():
    """A small encoder, two clip frames of 16x32 pixels, one object and one point."""
    random = np.random.default_rng(3)
    levels = [random.standard_normal((1, 2, h, 2 * h, 8)).astype(np.float32) for h in (1, 1, 2)]
    maps = (levels, random.standard_normal((1, 2, 4, 8, 8)).astype(np.float32))
    masks = np.zeros((1, 1, 1, 16, 32), bool)
    masks[..., 4:9, 8:20] = True
    exemplars = {
        "frames": np.array([[1]]),
        "masks": masks,
        "points": np.array([[[0.3, 0.7]]], np.float32),
        "point_frames": np.array([[0]]),
    }
    model = ObjectEncoder(8, 2, 16, num_layers=2)
    variables = jax.jit(model.init)(jax.random.key(0), maps, exemplars)
    return model, variables, maps, exemplars


def test_queries_of_background_masks_and_points_in_this_order():
    model, variables, maps, exemplars = encoder()
    run = jax.jit(model.apply)
    background, objects = run(variables, maps, exemplars)
    assert background.shape == (1, 16, 8) and objects.shape == (1, 8 + 1, 8)
    in_training = functools.partial(model.apply, train=True)
    assert jax.eval_shape(in_training, variables, maps, exemplars)[1].shape == (1, 4 + 1, 8)

    # frame 0 is no reference frame: only the point looks at it, and through self-attention all queries a little
    levels, mask_features = maps
    other = (levels, mask_features.copy())
    other[1][:, 0, 0, 0] += 1  # a cell that the point does not lie in
    np.testing.assert_array_equal(run(variables, other, exemplars)[1], objects)
    other[1][:, 0, 1, 5] += 1  # y 0.3 * 4 - 0.5 -> 1, x 0.7 * 8 - 0.5 -> 5
    assert np.abs(run(variables, other, exemplars)[1] - objects).max() > 1e-4


def test_gradient_reaches_the_maps_through_points_only():
    model, variables, maps, exemplars = encoder()

    def loss(mask_features):
        return sum((q**3).sum() for q in model.apply(variables, (maps[0], mask_features), exemplars))

    touched = np.argwhere(np.asarray(jax.jit(jax.grad(loss))(maps[1])).any(axis=-1))
    np.testing.assert_array_equal(touched, [[0, 0, 1, 5]])
