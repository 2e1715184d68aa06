"""Differences of two results, and whether the interval is that of the sets it stands for."""

import json

import numpy as np
import pytest
from label_scenes import CLASSES, video

from vps_jax.evaluation import compare, metrics, scoring
from vps_jax.evaluation.protocol import PANOPTIC, Settings
from vps_jax.types import UserError

SETTINGS = Settings(CLASSES, windows=(1, 2))
NAMES = ("vpq", "stq", "miou")
KINDS = {1: 0, 2: 2, 3: 3, 4: 1}


def scene(seed, share):
    """Three frames of which a prediction has a share of pixels right."""
    rng = np.random.default_rng(seed)
    maps = np.repeat(np.repeat(rng.integers(0, 5, (1, 3, 3)), 2, axis=1), 3, axis=0)
    prediction = np.where(rng.random(maps.shape) < share, maps, rng.integers(0, 5, maps.shape))
    return video(maps, KINDS), video(prediction, KINDS)


def score(scenes):
    """Result of scenes {name: (truth, prediction)} as the runner gives it."""
    states = scoring.make_states(metrics.choose(NAMES, PANOPTIC), SETTINGS)
    for name, both in scenes.items():
        scoring.score_video(states, name, zip(*both, strict=True), SETTINGS)
    head = {"layout": "vipseg", "split": "val", "quirks_on": [], "quirks_off": []}
    return json.loads(json.dumps(head | scoring.compute(states)))


A = {f"v{i}": scene(i, 0.6) for i in range(6)}
B = {f"v{i}": scene(i, 0.85) for i in range(6)}


@pytest.mark.parametrize("name", NAMES)
def test_resampling_equals_scoring_the_set(name):
    """A set in which a video occurs twice is scored for real, under two names."""
    weights = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 0], [0, 0, 0, 0, 0, 6], [0, 0, 0, 0, 0, 1]])
    found = metrics.METRICS[name].load().resample(score(B)[name], weights)[name]
    for value, row in zip(found, weights, strict=True):
        several = {f"{v}x{n}": B[f"v{v}"] for v, count in enumerate(row) for n in range(count)}
        assert value == pytest.approx(metrics.headline(score(several))[name], abs=1e-9)


def test_the_interval_covers_the_mean_of_resampled_sets():
    rng = np.random.default_rng(1)
    differences = []
    for _ in range(60):
        drawn = rng.integers(0, 6, 6)
        sets = [{f"{n}": side[f"v{v}"] for n, v in enumerate(drawn)} for side in (A, B)]
        differences.append([metrics.headline(score(one)) for one in sets])
    result = compare.compare(score(A), score(B), samples=400)
    for one in result.scores:
        if one.name in NAMES:
            low, high = one.interval
            real = [b[one.name] - a[one.name] for a, b in differences]
            assert low < np.mean(real) < high
            assert low < one.difference < high and low > 0  # B is better in every video
            inside = np.mean([low <= value <= high for value in real])
            assert inside > 0.85


def test_a_result_does_not_differ_from_itself():
    result = compare.compare(score(A), score(A))
    assert all(one.difference == 0 and one.interval in (None, (0.0, 0.0)) for one in result.scores)
    assert all(row[3] == 0 for row in (*result.classes, *result.videos))
    assert compare.compare(score(A), score(B), seed=3) == compare.compare(score(A), score(B), seed=3)


def test_classes_and_videos_are_sorted_by_what_they_win():
    a, b = score(A), score(B)
    result = compare.compare(a, b)
    assert {row[0] for row in result.videos} == A.keys() and {row[0] for row in result.classes} == set(CLASSES.names)
    for rows in (result.classes, result.videos):
        assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    best = result.classes[0]
    ids = {row["name"]: row["vpq"] for row in b["vpq"]["per_class"].values()}
    assert best[2] == ids[best[0]]


def test_what_was_not_scored_alike_is_refused():
    a = score(A)
    for change, words in (
        ({"split": "test"}, "split is 'val'.*'test'"),
        ({"quirks_off": ["void_class"]}, "quirks_off"),
        ({"vpq": None}, None),
    ):
        other = {**a, **change}
        if words:
            with pytest.raises(UserError, match=words):
                compare.compare(a, other)
    with pytest.raises(UserError, match="video v5 is in one"):
        compare.compare(a, score({name: A[name] for name in list(A)[:5]}))
    with pytest.raises(UserError, match="share no metric"):
        compare.compare({k: v for k, v in a.items() if k not in NAMES}, a)
