"""VidEoMT's loss against the published system's numbers, with its random points."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.losses import first_appearance
from vps_jax.losses.mask_losses import Objects
from vps_jax.tasks import make_task
from vps_jax.types import FrameQueryOutputs

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def case(golden_dir, golden_is_whole):
    """Manifest, stored arrays, outputs of all sets (main last) and the objects of a clip."""
    manifest, stored = golden_files.load(golden_dir, "videomt_loss", whole=golden_is_whole)
    count = len(manifest["match_indices_query_target"])
    order = [*range(1, count), 0]  # the file has the main prediction first, ours is last
    logits = np.stack([stored[f"out{i}_pred_logits"] for i in order])[:, None]  # [d, b, t, q, k + 1]
    masks = np.stack([stored[f"out{i}_pred_masks"][:, :, 0] for i in order])[:, None]  # [d, b, t, q, h4, w4]
    queries = logits.shape[3]
    # logits become features, one channel per query, with unit vectors as queries
    embeds = np.broadcast_to(np.eye(queries, dtype=np.float32), (*logits.shape[:3], queries, queries))
    outputs = FrameQueryOutputs(jnp.asarray(np.moveaxis(masks, 3, -1)), jnp.asarray(embeds), jnp.asarray(logits), None)
    return manifest, stored, outputs, objects_of(stored["target_masks"], stored["target_labels"])


def objects_of(masks, labels) -> Objects:
    """Masks `[n, t, h, w]` that may overlap as one map: an id for every combination of objects."""
    n = masks.shape[0]
    combinations, ids = np.unique(masks.reshape(n, -1).T, axis=0, return_inverse=True)
    if combinations[0].any():  # id 0 is no object
        combinations, ids = np.concatenate([np.zeros_like(combinations[:1]), combinations]), ids + 1
    ids = jnp.asarray(ids.reshape(1, *masks.shape[1:]), jnp.int32)
    labels = jnp.asarray(labels, jnp.int32)[None]
    return Objects(ids, labels, jnp.ones_like(labels, bool), jnp.asarray(combinations.astype(bool))[None])


def pairs(manifest, order, n):
    """The query of every object in the sets of `order`: `[d, b, n]`."""
    columns = np.full((len(order), 1, n), -1)
    for d, i in enumerate(order):
        queries, targets = manifest["match_indices_query_target"][i]
        columns[d, 0, targets] = queries
    return columns


def points_of(manifest, stored, first, order):
    """The stored points by frame and by object."""
    frames = np.unique(first)
    t, n = stored["target_masks"].shape[1], len(first)
    count = stored["match_points0"].shape[0]
    matcher = np.zeros((len(order), 1, t, count, 2), np.float32)
    masks = np.zeros((len(order), 1, n, t, count, 2), np.float32)
    for d, i in enumerate(order):
        for j, frame in enumerate(frames):
            matcher[d, 0, frame] = stored[f"match_points{i * len(frames) + j}"]
        targets = manifest["match_indices_query_target"][i][1]
        of_frames = stored[f"loss_points{i}"].reshape(t, n, count, 2)
        masks[d, 0, targets] = np.swapaxes(of_frames, 0, 1)
    return {"matcher": jnp.asarray(matcher), "instance": jnp.asarray(masks)}


def test_objects_keep_the_query_of_their_first_frame(case):
    manifest, stored, outputs, objects = case
    order = [*range(1, outputs.class_logits.shape[0]), 0]
    first = np.asarray(first_appearance.first_frames(objects))[0]
    np.testing.assert_array_equal(first, (stored["target_ids"] >= 0).argmax(axis=1))
    points = points_of(manifest, stored, first, order)
    costs = manifest["cost_weights"]
    weights = tuple(float(costs[name]) for name in ("class", "mask", "dice"))
    sets = first_appearance.FrameSets(*outputs[:3])
    columns = jax.jit(
        lambda sets, matcher: jax.lax.map(
            lambda x: first_appearance.match(x[0], objects, jnp.asarray(first)[None], x[1], weights=weights),
            (sets, matcher),
        )
    )(sets, points["matcher"])
    np.testing.assert_array_equal(columns, pairs(manifest, order, len(first)))


def test_loss_of_every_set(case):
    manifest, stored, outputs, objects = case
    d = outputs.class_logits.shape[0]
    first = np.asarray(first_appearance.first_frames(objects))[0]
    costs = manifest["cost_weights"]
    task = make_task(
        "video_masks",
        {
            "match_frame": "appearance",
            "background_weight": manifest["no_object_weight"],
            **{f"{name}_weight": float(value) for name, value in costs.items()},
        },
        num_classes=outputs.class_logits.shape[-1] - 1,
    )
    points = points_of(manifest, stored, first, [*range(1, d), 0])
    total, terms = jax.jit(lambda o: task.set_terms(o, objects, None, points=points))(outputs)
    ours = {}
    for name, theirs, weight in (("class", "ce", "class"), ("dice", "dice", "dice"), ("mask", "mask", "mask")):
        values = np.asarray(terms[name]) / costs[weight]
        ours |= {f"loss_{theirs}_{i}": values[i] for i in range(d - 1)} | {f"loss_{theirs}": values[-1]}
    entry = manifest["arrays"]["loss_values"]
    gap = np.asarray([ours[name] for name in manifest["loss_names"]], np.float64) - stored["loss_values"]
    assert np.abs(gap).max() <= entry["atol"] and np.sqrt(np.mean(gap**2)) <= entry["rms_tol"]
    np.testing.assert_allclose(total, sum(np.sum(terms[name]) for name in ("class", "mask", "dice")), rtol=1e-6)
