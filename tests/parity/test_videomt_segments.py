"""VidEoMT's post-processing against the published systems' numbers: the authors' clip-level rules."""

import golden_files
import jax.numpy as jnp
import numpy as np
import pytest
import videomt_rule

from vps_jax.infer import video_segments
from vps_jax.types import Geometry

pytestmark = pytest.mark.parity
CLASSES, THINGS = 10, range(4)  # as the manifest's `what` says
THRESHOLD = 0.8


@pytest.fixture(scope="module")
def case(golden_dir, golden_is_whole):
    return golden_files.load(golden_dir, "videomt_video_post", whole=golden_is_whole)


def inputs(manifest, name):
    """Settings, class logits `[q, k + 1]` averaged over the video, mask logits `[t, h4, w4, q]` and sizes of a case."""
    c = manifest["cases"][name]
    args = c["designed_name"], manifest["seed"], c["queries"], c["frames"], CLASSES, *c["logit_size"]
    classes, masks = videomt_rule.designed(*args)
    sizes = (c["image_size_padded"], c["image_size_unpadded"], c["output_size"])
    return c, classes.mean(axis=0), jnp.asarray(np.moveaxis(masks, 0, -1)), Geometry(*map(tuple, sizes))


def names(manifest):
    return sorted(manifest["cases"])


def assert_alike(found, expected, allowed=5e-4):
    assert found.shape == expected.shape
    assert np.mean(found != expected) <= allowed


def test_panoptic_segments_of_the_whole_video(case):
    manifest, stored = case
    for name in names(manifest):
        c, classes, masks, geometry = inputs(manifest, name)
        kept = video_segments.kept_queries(classes, THRESHOLD)
        scores, logits = video_segments.padded(kept, masks)
        painted, areas = video_segments.owners(scores, logits, geometry)
        found, ids = video_segments.segments(kept, areas, THINGS, THRESHOLD)
        told = [{"id": s.id, "isthing": s.is_thing, "category_id": s.category, "query": s.query} for s in found]
        assert told == c["segments"]
        assert_alike(video_segments.paint(painted, ids), stored[f"{name}_panoptic"])


def test_frames_one_by_one_are_decided_by_the_video(case):
    """Owners and areas of single frames add up to those of the clip."""
    manifest, _ = case
    _, classes, masks, geometry = inputs(manifest, names(manifest)[0])
    scores, logits = video_segments.padded(video_segments.kept_queries(classes, THRESHOLD), masks)
    painted, areas = video_segments.owners(scores, logits, geometry)
    frames = [video_segments.owners(scores, frame[None], geometry) for frame in logits]
    np.testing.assert_array_equal(np.concatenate([frame for frame, _ in frames]), painted)
    np.testing.assert_array_equal(np.sum([np.stack(part) for _, part in frames], axis=0), np.stack(areas))


def test_semantic_scores_and_classes(case):
    manifest, stored = case
    for name in names(manifest):
        _, classes, masks, geometry = inputs(manifest, name)
        scores = np.moveaxis(np.asarray(video_segments.semantic_scores(jnp.asarray(classes), masks, geometry)), -1, 0)
        entry = manifest["arrays"][f"{name}_semantic_scores"]
        gap = np.abs(scores[:, :, 2::8, 2::8].astype(np.float64) - stored[f"{name}_semantic_scores"])
        assert gap.max() <= entry["atol"] and np.sqrt(np.mean(gap**2)) <= entry["rms_tol"]
        assert_alike(scores.argmax(axis=0), stored[f"{name}_semantic"])


def test_instances_by_falling_score(case):
    manifest, _ = case
    for name in names(manifest):
        c, classes, masks, geometry = inputs(manifest, name)
        told = c["instances_sorted_by_score"]
        found = video_segments.top_instances(classes, len(told))
        assert found.queries.tolist() == [instance["query"] for instance in told]
        assert found.classes.tolist() == [instance["label"] for instance in told]
        np.testing.assert_allclose(found.scores, [instance["score"] for instance in told], atol=1e-6)
        areas = np.asarray(video_segments.instance_masks(masks[..., found.queries], geometry)).sum(axis=(1, 2)).T
        expected = np.array([instance["area_per_frame"] for instance in told])
        assert np.all(np.abs(areas - expected) <= np.maximum(2, 0.002 * expected))
