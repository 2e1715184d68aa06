"""Upsampling and painting: hand-worked frames, naive twins, and memory that does not grow with the video."""

import cv2
import numpy as np
import pytest

from vps_jax.datasets.classes import ClassTable
from vps_jax.infer import fusion, upsampling
from vps_jax.infer.fusion import Fuser, TrackLabel
from vps_jax.infer.score_maps import GridScores
from vps_jax.types import ClosedTrack, FrameScores, FrameTracks, Geometry

SMALL = Geometry((64, 64), (64, 64), (64, 64))


def naive(maps, geometry):
    """`[n, h4, w4]` -> `[n, h, w]`: three steps one after the other, by OpenCV's bilinear resizing."""
    height, width = geometry.resized
    up = [cv2.resize(x, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)[:height, :width] for x in maps]
    return np.stack([cv2.resize(x, geometry.original[::-1], interpolation=cv2.INTER_LINEAR) for x in up])


GEOMETRIES = [
    Geometry((64, 128), (60, 92), (90, 134)),  # enlarges
    Geometry((64, 128), (64, 113), (47, 83)),  # shrinks
    Geometry((128, 64), (97, 64), (300, 199)),
    Geometry((64, 64), (64, 64), (1, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_labels_and_masks_equal_the_naive_form(geometry):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(7, geometry.padded[0] // 4, geometry.padded[1] // 4)).astype(np.float32)
    slow = naive(maps, geometry)
    assert np.array_equal(upsampling.label_map(maps, geometry), slow.argmax(0))
    stuff = [0, 2, 3, 6]
    masked = np.where(np.isin(np.arange(7), stuff)[:, None, None], slow, upsampling.EXCLUDED)
    assert np.array_equal(upsampling.label_map(maps, geometry, classes=stuff), masked.argmax(0))
    height, width = geometry.original
    bits = upsampling.mask_bits(maps, geometry)
    unpacked = np.unpackbits(bits, axis=2)
    assert np.array_equal(unpacked[:, :height, :width], slow > 0)
    assert not unpacked[:, height:].any() and not unpacked[:, :, width:].any()


def test_upsampling_by_four_has_the_weights_of_half_pixel_centres():
    """Output rows 0 and 1 repeat the border, row 2 lies 1/8 and row 5 lies 7/8 of the way to the next source row."""
    maps = upsampling.upsampling(SMALL)
    dense = np.zeros((64, 16))
    for y in range(64):
        dense[y, maps.first_row[y] : maps.first_row[y] + 3] = maps.row_weights[y]
    assert dense[0].tolist() == [1] + [0] * 15 == dense[1].tolist()
    assert dense[2, :3].tolist() == [0.875, 0.125, 0]
    assert dense[5, :3].tolist() == [0.125, 0.875, 0]
    assert dense[63, 15] == 1
    np.testing.assert_allclose(dense.T, maps.columns[:, :64], atol=1e-7)
    assert not maps.columns[:, 64:].any()  # beyond the video


def test_a_class_that_takes_no_part_wins_only_below_its_score():
    semantic = np.zeros((3, 16, 16), np.float32)
    semantic[1] = 5  # excluded, however high
    semantic[2] = -2000
    semantic[0, :, 8:] = -1500
    labels = upsampling.label_map(semantic, SMALL, classes=[0, 2])
    assert set(np.unique(labels[:, :28])) == {0} and set(np.unique(labels[:, 40:])) == {1}


def test_the_first_of_equal_classes_wins():
    assert not upsampling.label_map(np.ones((4, 16, 16), np.float32), SMALL).any()


def test_classes_that_win_nowhere_are_left_out():
    """Plateaus whose borders lie in one window each; a class that is everywhere second is none of the contenders."""
    rng = np.random.default_rng(0)
    semantic = rng.normal(scale=0.1, size=(6, 16, 32)).astype(np.float32)
    semantic[1, :, :12] += 9
    semantic[4, :, 12:] += 9
    semantic[2] += 5  # above what both have beyond their border
    semantic[5, 3, 3] = np.nan  # says nothing of any class there

    def contenders(*classes):
        return np.asarray(upsampling._contenders(semantic, np.array(classes))).tolist()

    assert contenders(0, 1, 2, 3, 4, 5) == [True] * 6
    assert contenders(0, 1, 2, 3, 4) == [False, True, True, False, True]
    assert contenders(0, 3) == [True, True]
    wide = Geometry((64, 128), (64, 128), (100, 200))
    assert np.array_equal(upsampling.label_map(semantic[:5], wide), naive(semantic[:5], wide).argmax(0))
    assert set(np.unique(upsampling.label_map(semantic, wide))) <= {1, 2, 4}


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([0.0, 3.0, 0.0], TrackLabel(0, pytest.approx(np.exp(3) / (np.exp(3) + 2)))),
        ([3.0, 0.0, 0.0], None),  # background
        ([0.0, 0.0, 3.0], None),  # stuff
        ([0.0, 0.0, -np.inf], None),  # background wins a tie
        ([-np.inf, 0.0, 0.0], None),  # 0.5 does not exceed 0.5
    ],
)
def test_label_of_a_track(logits, expected):
    assert fusion.label_track(np.array(logits), [0], min_score=0.5) == expected


def frame(stem, track_ids, boxes, closed=(), stuff=2):
    """A frame's scores with one class of stuff and a box of columns per track, in stride-4 cells."""
    masks = np.full((len(track_ids), 16, 16), -1.0, np.float32)
    for mask, (left, right) in zip(masks, boxes, strict=True):
        mask[:, left:right] = 1
    semantic = np.zeros((3, 16, 16), np.float32)
    semantic[stuff] = 1
    tracks = FrameTracks(np.array(track_ids, np.int32), masks, closed)
    return FrameScores(str(stem), SMALL, GridScores(semantic, SMALL), tracks)


def fuser(**options):
    """A fuser of two thing classes 0, 1 and stuff 2."""
    return Fuser(SMALL, thing_ids=[0, 1], min_score=0.5, **options)


def add(fuser, *args):
    return list(fuser.add(frame(*args), stuff_ids=[2]))


def track(track_id, category, score):
    """A closed track with two thing classes 0, 1 and stuff 2."""
    logits = np.zeros(4)
    logits[1 + category] = np.log(3 * score / (1 - score))
    return ClosedTrack(track_id, logits)


def test_the_highest_score_is_painted_last():
    closed = [track(5, 0, 0.9), track(6, 1, 0.6), track(7, 0, 0.4), track(8, 2, 0.9)]
    boxes = [(4, 8), (2, 12), (0, 16), (0, 16)]
    (done,) = add(fuser(), 0, [5, 6, 7, 8], boxes, closed)
    row = done.track_ids[30]
    assert [int(row[x]) for x in (4, 10, 20, 40, 60)] == [0, 6, 5, 6, 0]  # columns of 4 pixels: 2-12 and 4-8 on top
    assert [int(done.categories[30, x]) for x in (4, 10, 20, 40, 60)] == [2, 1, 0, 1, 2]


def test_a_frame_waits_for_its_last_track_and_order_is_kept():
    one = fuser()
    assert add(one, 0, [1], [(0, 8)]) == [] == add(one, 1, [], [])
    assert one.waiting_frames == 2
    later = add(one, 2, [1, 2], [(0, 8), (8, 16)], [track(1, 0, 0.9)])
    assert [f.stem for f in later] == ["0", "1"]
    second, last = add(one, 3, [], [], [track(2, 1, 0.8)])
    assert second.stem == "2" and set(np.unique(second.track_ids)) == {1, 2} and last.stem == "3"


def test_a_class_that_is_known_in_its_frame_is_painted_at_once():
    one = fuser()
    for category in (0, 1):  # another opinion in the next frame
        (done,) = add(one, category, [1], [(0, 16)], [track(1, category, 0.9)])
        assert set(np.unique(done.categories)) == {category}


def test_an_empty_mask_holds_nothing_up():
    (done,) = add(fuser(), 0, [1], [(3, 3)])
    assert not done.track_ids.any() and set(np.unique(done.categories)) == {2}


def test_a_track_closed_in_one_step_is_known_in_the_next():
    """Frames of a track may come until the next that closes any; thousands of old ones are forgotten."""
    one = fuser()
    for i in range(0, 4000, 500):
        add(one, "closes", [], [], [track(i + k, 0, 0.9) for k in range(500)])
        for stem in "ab":
            (done,) = add(one, stem, [i + 499], [(0, 16)])
            assert (done.track_ids == i + 499).all()
    assert len(one._closed) <= 2000


def test_memory_stays_within_the_budget_while_a_track_lasts(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    rng = np.random.default_rng(0)
    one = fuser(budget_bytes=3000)
    frames = []
    for index in range(40):
        noisy = frame(index, [1], [(0, 16)])
        noisy.tracks.masks[:] = rng.normal(size=noisy.tracks.masks.shape)
        frames.append(noisy)
        assert list(one.add(noisy, stuff_ids=[2])) == []
        assert one._blobs.held_bytes <= 3000
    assert list(tmp_path.rglob("*.z"))  # the rest is on disk
    final = one.add(frame(40, [], [], [track(1, 0, 0.9)]), stuff_ids=[2])
    first = next(final)
    assert list(tmp_path.rglob("*.z"))  # the others are painted when they are asked for
    *done, _ = first, *final
    assert [f.stem for f in done] == list(map(str, range(40)))
    for before, after in zip(frames, done, strict=True):
        assert np.array_equal(after.track_ids > 0, naive(before.tracks.masks, SMALL)[0] > 0)
    assert not list(tmp_path.rglob("*.z")) and one._blobs.held_bytes == 0
    one.close()
    assert not list(tmp_path.iterdir())


def test_frames_without_tracks_let_all_classes_compete():
    """All pixels of a thing class are one track, numbered by the class."""
    table = ClassTable(("a", "b", "c"), ((1, 1, 1),) * 3, (True, True, False))
    semantic = np.zeros((3, 16, 16), np.float32)
    semantic[1, :, :8] = semantic[2, :, 8:] = 1
    one = FrameScores("x", SMALL, GridScores(semantic, SMALL))
    (done,) = fusion.fuse_frames([one], table)
    assert set(np.unique(done.categories[:, :30])) == {1} and set(np.unique(done.track_ids[:, :30])) == {2}
    assert set(np.unique(done.categories[:, 34:])) == {2} and not done.track_ids[:, 34:].any()
