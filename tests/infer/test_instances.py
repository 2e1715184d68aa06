"""The instance task: tracks of a whole video ranked with their classes, masks that may overlap, result rows."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from vps_jax.config import ClipInference
from vps_jax.datasets.classes import class_table
from vps_jax.evaluation import ytvis_folders
from vps_jax.infer import clip_predictor, instances
from vps_jax.infer.clip_predictor import ClipPredictor
from vps_jax.infer.instances import Candidate
from vps_jax.infer.predict import predict
from vps_jax.media.sources import open_videos
from vps_jax.types import ClipPrediction, ClosedTrack

CLASSES = class_table("ovis")
INFER = ClipInference(
    task="instance", clip_frames=4, overlap_frames=2, short_side_px=64, score_threshold=0.0, max_tracks_per_clip=2,
    max_instances=3,
)  # fmt: skip
ODDS = {0: [1, 4, 3, 2], 1: [1, 1, 2, 6]}  # background, then three classes, of the two squares


def test_tracks_are_ranked_with_every_class():
    closed = [ClosedTrack(7 + i, np.log(odds)) for i, odds in ODDS.items()]
    assert instances.likeliest(closed, range(3), 4) == [
        Candidate(8, 2, pytest.approx(0.6)),
        Candidate(7, 0, pytest.approx(0.4)),
        Candidate(7, 1, pytest.approx(0.3)),
        Candidate(7, 2, pytest.approx(0.2)),  # the first of equals
    ]
    assert [one.category for one in instances.likeliest(closed, [1, 2], 2)] == [2, 1]  # things alone
    assert instances.likeliest([], range(3), 4) == []


def test_masks_of_one_class_are_disjoint_and_those_of_two_overlap():
    left, right = np.array([[1, 1, 0]], bool), np.array([[0, 1, 1]], bool)
    kept = [Candidate(1, 5, 0.9), Candidate(2, 5, 0.8), Candidate(2, 6, 0.7), Candidate(3, 5, 0.6)]
    found = instances.disjoint_in_class(kept, {1: left, 2: right})
    assert [(one.track_id, one.category, one.mask.tolist()) for one in found] == [
        (1, 5, [[True, True, False]]), (2, 5, [[False, False, True]]), (2, 6, [[False, True, True]]),
    ]  # fmt: skip
    assert instances.disjoint_in_class(kept[:2], {1: left, 2: left})[1:] == []  # nothing is left of the second
    frame = instances.instance_frame("0", (1, 3), found)
    assert frame.categories.tolist() == [[5, 5, 5]] and frame.track_ids.tolist() == [[1, 1, 2]]
    assert frame.scores == {1: 0.9, 2: 0.8} and frame.instances == tuple(found)
    empty = instances.instance_frame("0", (1, 2), [])
    assert (empty.categories == instances.UNKNOWN).all() and not empty.track_ids.any()


class TwoSquares:
    """Sees a red and a blue square, as instances of three classes with the odds above, and a third query of nothing."""

    programs = {}

    def fresh(self):
        return self

    def predict_sets(self, first, images):
        small = np.stack([cv2.resize(x, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for x in images])
        red, _, blue = np.moveaxis(small.astype(np.float32) / 64 - 2, -1, 0)  # [t, h4, w4]
        classes = np.full((3, 26), -40, np.float32)
        classes[:2, :4] = np.log([ODDS[0], ODDS[1]])
        classes[2, 0] = 9
        semantic = np.stack([0 * red - 7, *[0 * red + c for c in range(25)]])  # the background first
        return (ClipPrediction(np.stack([red, blue, red + 9]), classes, semantic),)


def write_folder(folder):
    """Five frames; the blue square is gone in the last."""
    folder.mkdir(parents=True)
    for i in range(5):
        image = np.zeros((64, 96, 3), np.uint8)
        image[8:24, 8:40, 0] = 255
        image[8:24, 24:56, 2] = 255 * (i < 4)
        cv2.imwrite(str(folder / f"{i:05d}.png"), image[..., ::-1])
    return folder


@pytest.fixture
def predictor(monkeypatch):
    monkeypatch.setattr(clip_predictor, "ClipModel", lambda *_, **__: TwoSquares())
    return ClipPredictor(None, {}, INFER)


def test_scores_have_no_background(tmp_path, predictor):
    (video,) = open_videos(write_folder(tmp_path / "v"))
    frames = list(predictor.stream(video))
    assert len(frames) == 5 and frames[0].scores.semantic.shape[0] == 25
    assert (frames[0].scores.labels() == 24).all()


def test_results_are_rows_that_a_youtube_vis_reader_takes(tmp_path, predictor):
    predict([write_folder(tmp_path / "7")], predictor, CLASSES, tmp_path / "out", progress=False, layout="ytvis")
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    first, second, third = sorted(rows, key=lambda row: -row["score"])
    assert [row["category_id"] for row in (first, second, third)] == [3, 1, 2]
    np.testing.assert_allclose([row["score"] for row in (first, second, third)], [0.6, 0.4, 0.3], rtol=1e-6)
    assert first["track"] != second["track"] == third["track"]
    assert second["segmentations"] == third["segmentations"] and None not in second["segmentations"]
    assert first["segmentations"][4] is None
    red, blue = (coco.decode(row["segmentations"][0]).astype(bool) for row in (second, first))
    assert red[16, 16] and blue[16, 48] and red[16, 32] and blue[16, 32]  # where they overlap both have the pixel
    truth = {
        "videos": [{"id": 7, "width": 96, "height": 64, "length": 5}],
        "annotations": [{"id": 1, "video_id": 7, "category_id": 1, "segmentations": second["segmentations"]}],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES.names)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    _, (video,) = ytvis_folders.read_files(tmp_path / "truth.json", tmp_path / "out" / "results.json")
    (true,), found = ytvis_folders.tracks(video)
    assert len(found) == 3 and sum(np.array_equal(one.frames[0], true.frames[0]) for one in found) == 2


def test_a_data_set_that_numbers_its_videos_gets_its_numbers(tmp_path, predictor):
    (video,) = open_videos(write_folder(tmp_path / "b02d"))
    predict([video._replace(number=31)], predictor, CLASSES, tmp_path / "out", progress=False, layout="ytvis")
    assert {row["video_id"] for row in json.loads((tmp_path / "out" / "results.json").read_text())} == {31}
