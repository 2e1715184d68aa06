"""Sliding-window inference of the image model against the published system (golden vit_adapter_slide)."""

import json

import jax
import numpy as np
import pytest
import vita_rule
from golden_files import load
from test_vit_adapter import build

from vps_jax.config import WindowInference
from vps_jax.infer import sliding
from vps_jax.infer.window_predictor import WindowPredictor
from vps_jax.ops.resize import linear_matrix

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def case(golden_dir, golden_is_whole):
    manifest, arrays = load(golden_dir, "vit_adapter_slide", whole=golden_is_whole)
    keys = json.loads((golden_dir / "vit_adapter_slide_keys.json").read_text())["keys"]
    model, variables = build(manifest, keys)
    call = manifest["input_call"]
    normalized = vita_rule.image(manifest["seed"], call["batch"], call["height"], call["width"], call["variant"])
    pixels = np.moveaxis(normalized[0], 0, -1) * vita_rule.STD + vita_rule.MEAN
    image = np.rint(pixels).astype(np.uint8)
    settings = WindowInference(
        short_side_px=min(image.shape[:2]), max_side_px=max(image.shape[:2]), size_multiple=1,
        window_px=manifest["crop"], stride_px=manifest["stride"], window_batch=2,
    )  # fmt: skip
    (scores,) = WindowPredictor(model, variables, settings).passes(image)
    return manifest, arrays, scores


def within(found, arrays, manifest, name):
    gap = np.abs(np.asarray(found, np.float64) - arrays[name][0])
    limits = manifest["arrays"][name]
    assert gap.max() <= limits["atol"], (name, gap.max())
    assert np.sqrt(np.mean(gap**2)) <= limits["rms_tol"], (name, np.sqrt(np.mean(gap**2)))


def test_the_windows_are_the_published_ones(case):
    manifest, _, one = case
    assert one.scores.shape[0] * one.scores.shape[1] == manifest["windows"]


def test_stitched_scores(case):
    manifest, arrays, one = case
    every = [np.eye(side)[::4] for side in one.size]
    found = sliding._read(one.scores, *sliding._matrices(one, *every))
    within(np.moveaxis(np.asarray(found), -1, 0), arrays, manifest, "preds_s4")


def test_probabilities_and_labels_at_the_original_size(case):
    manifest, arrays, one = case
    original = manifest["ori_shape"]
    readouts = [
        np.pad(linear_matrix(size, side), ((0, -side % sliding.BAND), (0, 0)))
        for size, side in zip(one.size, original, strict=True)
    ]
    parts = [(one.scores, *sliding._matrices(one, *readouts))]
    band = jax.jit(sliding.band_probabilities)
    found = np.concatenate([np.asarray(band(parts, y)) for y in range(0, original[0], sliding.BAND)])
    found = found[: original[0], : original[1]]
    within(np.moveaxis(found[::4, ::4], -1, 0), arrays, manifest, "prob_ori_s4")
    assert np.mean(found.argmax(-1) != arrays["argmax_ori"][0]) <= 2e-4
