import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vps_jax.evaluation import vc
from vps_jax.evaluation.quirks import without


def slow_scores(truth, prediction, n):
    """Windows 0 .. l-n-1: the share of constant truth that is constant in the prediction."""
    scores = []
    for i in range(len(truth) - n):
        constant = (truth[i : i + n] == truth[i]).all(axis=0)
        kept = constant & (prediction[i : i + n] == prediction[i]).all(axis=0)
        scores.append(kept.sum() / constant.sum() if constant.any() else np.nan)
    return np.array(scores)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 10**6))
def test_scores_equal_the_definition_window_by_window(frames, n, seed):
    rng = np.random.default_rng(seed)
    truth, prediction = (np.where(rng.random((frames, 3, 4)) < 0.8, 1, 2).astype(np.uint8) for _ in range(2))
    tracker = vc.Tracker(4, lengths=(n,))
    for one, other in zip(truth, prediction, strict=True):
        tracker.add(one, other)
    np.testing.assert_array_equal(tracker.scores()[n], slow_scores(truth, prediction, n))


def run(truth, prediction, n, **options):
    tracker = vc.Tracker(4, lengths=(n,), **options)
    for one, other in zip(truth, prediction, strict=True):
        tracker.add(np.array([one], np.uint8), np.array([other], np.uint8))
    return tracker.scores()[n].tolist()


def test_hand_worked_windows():
    truth = [[1, 1, 2], [1, 1, 3], [1, 2, 3], [1, 2, 3]]
    prediction = [[0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]]
    # windows of 2: (frames 1, 2) constant truth 1, 2 of which 1 stays; (2, 3) 1 and 3, both stay; the last is left out
    assert run(truth, prediction, 2) == [0.5, 1.0]
    assert run(truth, prediction, 2, quirks=without("drop_last_window")) == [0.5, 1.0, 1.0]
    # the truth is class + 1, so pixel 1 is right all along, and pixel 3 never
    assert run(truth, prediction, 2, quirks=without("ignore_truth")) == [0.5, 0.5]


def test_a_constant_wrong_map_scores_100():
    truth, wrong = [[1, 2]] * 5, [[3, 3]] * 5
    assert run(truth, wrong, 2) == [1.0] * 3


def test_void_that_stays_void_is_consistent_unless_switched_off():
    truth, prediction = [[0, 255, 1]] * 3, [[0, 1, 2], [1, 1, 2], [0, 1, 2]]
    assert run(truth, prediction, 2) == [pytest.approx(2 / 3)]
    assert run(truth, prediction, 2, quirks=without("void_constant")) == [1.0]


def test_a_video_as_long_as_the_window_is_left_out_and_no_constant_truth_gives_nan():
    assert run([[1], [1]], [[0], [0]], 2) == []
    assert np.isnan(run([[1], [2], [2]], [[0]] * 3, 2)).tolist() == [True]


def test_mean_runs_over_windows_and_merge_equals_the_whole():
    def state(**videos):
        one = vc.VideoConsistency(4, lengths=(2,))
        for video, scores in videos.items():
            one.videos[video] = {2: np.array(scores)}
        return one

    long, short = [0.5, 1.0, np.nan], [0.0]
    whole = state(a=long, b=short).compute()
    assert whole["mvc2"] == pytest.approx(50.0)
    assert whole["windows"] == {"2": 4}
    assert whole["per_video"] == {"a": {"mvc2": 75.0}, "b": {"mvc2": 0.0}}
    part = state(b=short)
    part.merge(state(a=long))
    assert part.compute() == whole
    with pytest.raises(ValueError, match="twice"):
        part.merge(state(a=long))
    assert state().compute()["mvc2"] is None
