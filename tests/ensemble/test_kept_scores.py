"""Kept scores: numbers come back to the bit, files are whole or not there."""

import numpy as np
import pytest

from vps_jax.ensemble import kept_scores
from vps_jax.ensemble.kept_scores import ScoreHeader
from vps_jax.infer.fusion import Geometry
from vps_jax.types import UserError

HEADER = ScoreHeader("weights of a run", ("wall", "sky"), Geometry((64, 128), (60, 101), (90, 150)))


def test_scores_come_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    frames = {f"{i:08d}": kept_scores.as_kept(rng.normal(size=(2, 16, 32)) * 10.0**i) for i in range(5)}
    path = kept_scores.score_path(tmp_path / "member", "7_a-b_c")
    with kept_scores.write_scores(path, HEADER) as append:
        for stem, values in frames.items():
            append(stem, values)
    assert kept_scores.read_header(path) == HEADER
    assert kept_scores.read_stems(path) == list(frames)
    found = dict(kept_scores.read_scores(path))
    assert list(found) == list(frames)
    for stem, values in frames.items():
        assert found[stem].dtype == np.float16 and np.array_equal(found[stem], values)


def test_large_scores_stay_finite():
    assert kept_scores.as_kept(np.array([1e9, -1e9, 0.1])).tolist() == [65504, -65504, float(np.float16(0.1))]


def test_a_video_that_is_not_whole_leaves_no_file(tmp_path):
    path = kept_scores.score_path(tmp_path, "v")
    with pytest.raises(RuntimeError), kept_scores.write_scores(path, HEADER) as append:
        append("1", np.zeros((2, 16, 32), np.float16))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(tmp_path):
    (tmp_path / "v.scores").write_text("something else\n")
    with pytest.raises(UserError, match="v.scores: holds no kept scores"):
        kept_scores.read_header(tmp_path / "v.scores")
