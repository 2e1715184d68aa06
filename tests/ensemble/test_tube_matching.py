"""Things of two members: the tubes against a slow twin, what waits and what is forgotten, and whole ensembles."""

import itertools

import numpy as np
import pytest
from scipy.special import expit
from test_ensemble import CAR, CLASSES, PERSON, assert_same, image_member, run, sources, vps, vss

from vps_jax.config import Matching
from vps_jax.ensemble import kept_tracks, tube_matching
from vps_jax.ensemble import predict_ensemble as running
from vps_jax.ensemble.tube_matching import TubeOverlaps, match_tracks, mean_mask, merged
from vps_jax.infer.score_maps import GridScores
from vps_jax.media import result_folders
from vps_jax.media.pending import PendingBlobs
from vps_jax.types import ClosedTrack, FrameScores, FrameTracks, Geometry

__all__ = ["sources"]  # a fixture
SIZES = Geometry((16, 24), (16, 24), (16, 24))
GRID = (4, 6)
NO_TRACKS = FrameTracks(np.zeros(0, np.int32), np.zeros((0, *GRID), np.float16))


def closed(track_id, category):
    """A track that is surely of a class."""
    logits = np.full(125, -9.0, np.float32)
    logits[1 + category] = 9
    return ClosedTrack(track_id, logits)


def tracks_of(masks, classes=()):
    """Tracks of a frame from logits by id, with the classes of those that are closed now."""
    stacked = np.array(list(masks.values()), np.float16).reshape(-1, *GRID)
    return FrameTracks(np.array(list(masks), np.int32), stacked, [closed(*pair) for pair in dict(classes).items()])


def frames_of(first, other):
    """Frames of even stuff, with the tracks of two members."""
    for i, both in enumerate(zip(first, other, strict=True)):
        scores = GridScores(np.zeros((124, *GRID), np.float32), SIZES)
        yield FrameScores(f"{i:04d}", SIZES, scores), *both


def matched(first, other, weight=0.5, min_iou=0.5):
    return list(match_tracks(frames_of(first, other), Matching("other", weight, min_iou), CLASSES))


def random_video(seed, count=5, ids=(1, 2, 3)):
    """Blobs that drift, each in some of the frames; (tracks of every frame, logits by frame and id)."""
    rng = np.random.default_rng(seed)
    base = {i: rng.normal(-1, 2, GRID) for i in ids}
    shown = {i: rng.random(count) < 0.8 for i in ids}
    logits = [{i: base[i] + rng.normal(0, 1, GRID) for i in ids if shown[i][t]} for t in range(count)]
    return [{i: x.astype(np.float16) for i, x in frame.items()} for frame in logits]


def slow_iou(first, other, a, b):
    """Over the frames that both are in, pixel by pixel."""
    both = [(f[a] > 0, o[b] > 0) for f, o in zip(first, other, strict=True) if a in f and b in o]
    return sum((x & y).sum() for x, y in both) / max(1, sum((x | y).sum() for x, y in both)), sum(
        (x & y).sum() for x, y in both
    )


def slow_pairs(first, other, classes, min_iou):
    """The best of all ways to give each track at most one partner of its class."""
    best, found = 0, {}
    for permutation in itertools.permutations([1, 2, 3, None, None, None], 3):
        pairs = {a: b for a, b in zip((1, 2, 3), permutation, strict=True) if b}
        rated = [slow_iou(first, other, a, b) for a, b in pairs.items()]
        if all(classes[0][a] == classes[1][b] for a, b in pairs.items()) and all(iou > min_iou for iou, _ in rated):
            total = sum(shared for _, shared in rated)
            if total > best:
                best, found = total, pairs
    return found


@pytest.mark.parametrize("seed", range(6))
def test_masks_and_pairs_of_a_slow_twin(seed):
    first = random_video(seed)
    noise = np.random.default_rng(100 + seed)
    names = dict(zip((1, 2, 3), noise.permutation([1, 2, 3]).tolist(), strict=True))
    other = [{names[i]: x + noise.normal(0, 1, GRID).astype(np.float16) for i, x in frame.items()} for frame in first]
    other[0].pop(names[2], None)
    first[-1].pop(1, None)
    classes = ({1: PERSON, 2: CAR, 3: PERSON}, {names[1]: PERSON, names[2]: CAR, names[3]: PERSON})
    ending = [({}, {})] * (len(first) - 1) + [classes]
    streams = [[tracks_of(m, e[side]) for m, e in zip(video, ending, strict=True)] for side, video in
               enumerate((first, other))]  # fmt: skip
    pairs = slow_pairs(first, other, classes, 0.3)
    assert pairs
    for found, mine, its in zip(matched(*streams, weight=0.4, min_iou=0.3), first, other, strict=True):
        expected = dict(mine)
        for a, b in pairs.items():
            if b in its:
                p, q = (expit(x[i].astype(float)) if i in x else None for x, i in ((mine, a), (its, b)))
                mean = q if p is None else 0.6 * p + 0.4 * q
                expected[a] = np.log(mean / (1 - mean))
        assert set(found.tracks.ids.tolist()) == set(expected)
        for track, mask in zip(found.tracks.ids.tolist(), found.tracks.masks, strict=True):
            np.testing.assert_allclose(mask, expected[track], atol=1e-4)


BLOCK, SHIFTED, FAR = (np.full(GRID, -5.0) for _ in range(3))
BLOCK[:, 0:4] = SHIFTED[:, 1:5] = FAR[:, 5] = 5  # the first two share 12 of 20 cells


def test_only_tracks_of_one_class_whose_tubes_agree_are_one():
    first, other = {4: BLOCK}, {9: SHIFTED}
    for name, category, min_iou, changed in (
        ("agree", PERSON, 0.5, True), ("another class", CAR, 0.5, False), ("too little", PERSON, 0.61, False),
        ("stuff", CLASSES.stuff_ids[0], 0.5, False),
    ):  # fmt: skip
        kind = PERSON if name != "stuff" else category
        (found,) = matched([tracks_of(first, {4: kind})], [tracks_of(other, {9: category})], 1.0, min_iou)
        assert found.tracks.ids.tolist() == [4]
        assert np.array_equal(found.tracks.masks[0], SHIFTED if changed else BLOCK), name
        assert [(c.track_id, c.class_logits.argmax() - 1) for c in found.tracks.closed] == [(4, kind)]


def test_of_two_pieces_of_a_thing_the_larger_gets_the_partner():
    first = [tracks_of({1: BLOCK}, {1: PERSON}), tracks_of({2: BLOCK}), tracks_of({2: BLOCK}, {2: PERSON})]
    other = [tracks_of({7: BLOCK}, {7: PERSON}), tracks_of({7: BLOCK}), tracks_of({7: SHIFTED})]
    found = matched(first, other)
    assert [frame.tracks.ids.tolist() for frame in found] == [[1, 2], [2], [2]]  # the first frame has 7's mask too
    assert found[0].tracks.closed and not found[1].tracks.closed


def test_a_weight_of_zero_or_one_is_one_members_mask():
    first, other = np.random.default_rng(0).normal(0, 30, (2, *GRID)).astype(np.float32)
    np.testing.assert_allclose(mean_mask(first, other, 0.0), first, rtol=1e-5)
    np.testing.assert_allclose(mean_mask(first, other, 1.0), other, rtol=1e-5)
    assert np.isfinite(mean_mask(np.full(GRID, 1e4, np.float32), np.full(GRID, -1e4, np.float32), 0.5)).all()


def test_frames_without_tracks_pass():
    found = matched([NO_TRACKS, tracks_of({1: BLOCK}, {1: CAR})], [tracks_of({1: FAR}, {1: CAR}), NO_TRACKS])
    assert [len(frame.tracks.ids) for frame in found] == [0, 1]
    assert merged(NO_TRACKS, NO_TRACKS, {}, 0.5).masks.shape == (0, *GRID)
    assert not list(match_tracks([], Matching("other"), CLASSES))


def test_frames_that_wait_on_disk_are_the_same(monkeypatch):
    first, other = random_video(0), random_video(1)
    ending = {1: PERSON, 2: PERSON, 3: PERSON}
    streams = [[tracks_of(frame, ending if t == 4 else {}) for t, frame in enumerate(v)] for v in (first, other)]
    expected = matched(*streams, min_iou=0.1)
    monkeypatch.setattr(tube_matching, "PendingBlobs", lambda: PendingBlobs(0))
    for a, b in zip(expected, matched(*streams, min_iou=0.1), strict=True):
        assert np.array_equal(a.tracks.masks, b.tracks.masks) and np.array_equal(a.tracks.ids, b.tracks.ids)
        assert np.array_equal(a.scores.labels(CLASSES.stuff_ids), b.scores.labels(CLASSES.stuff_ids))


def test_pairs_of_tracks_that_are_over_are_forgotten():
    overlaps = TubeOverlaps(0.5)
    for t in range(50):  # every frame has a new track of the first, and closes the one before
        gone = {t - 1: PERSON} if t else {}
        overlaps.add(tracks_of({t: FAR if t % 10 else BLOCK}, gone), tracks_of({1: BLOCK}))
        assert overlaps.num_pairs <= 3 + t // 10
    assert overlaps.pairs({30: PERSON, 31: PERSON}, {1: PERSON}) == {30: 1}


def test_tracks_are_kept_to_the_bit(tmp_path):
    for tracks in (tracks_of({3: BLOCK, 5: FAR}, {3: CAR}), NO_TRACKS):
        back = kept_tracks.unpack(kept_tracks.pack(tracks))
        assert np.array_equal(back.masks, tracks.masks) and back.masks.dtype == np.float16
        assert back.ids.tolist() == tracks.ids.tolist()
        assert [c.track_id for c in back.closed] == [c.track_id for c in tracks.closed]
        assert all(
            np.array_equal(a.class_logits, b.class_logits) for a, b in zip(back.closed, tracks.closed, strict=True)
        )


def matched_run(monkeypatch, sources, out, members, how="together", keep=None, **rule):
    """As `run`, with the things of the last member matched."""
    rule = {"member": members[-1].name, **rule}
    monkeypatch.setattr(running, "read_members", lambda config, _: (members, members[0]))
    config = {"members": {}, "run": how, "keep_scores": keep and str(keep), "matching": rule}
    return running.predict_ensemble(sources, config, None, out, overlay=False, progress=False)


def bigger(**options):
    """The same network on larger frames: its tracks are the same, its masks are not."""
    return vps("second", 1, settings={"short_side_px": 110, "max_side_px": 300}, **options)


def test_both_ways_of_running_and_kept_tracks_give_the_same_bytes(tmp_path, monkeypatch, sources):
    members = [vps(), vss("other", 1), image_member(), bigger(weight=0.0)]
    keep = tmp_path / "kept"
    matched_run(monkeypatch, sources, tmp_path / "together", members)
    matched_run(monkeypatch, sources, tmp_path / "in_turn", members, "in_turn")
    assert_same(tmp_path / "together", tmp_path / "in_turn")
    for _ in range(2):  # made, then found
        matched_run(monkeypatch, sources, tmp_path / "from_kept", members, keep=keep)
        assert_same(tmp_path / "together", tmp_path / "from_kept")
    assert sorted(path.parent.name.split("-")[0] for path in keep.glob("*/video0.tracks")) == ["second", "vps"]
    run(monkeypatch, sources, tmp_path / "unmatched", members[:3])
    names = ("together", "unmatched")
    both, plain = (list(result_folders.read_video(tmp_path / n, "video0", CLASSES)) for n in names)
    for a, b in zip(both, plain, strict=True):
        assert set(np.unique(a.track_ids)) == set(np.unique(b.track_ids))  # identities are the first's
        stuff = (a.track_ids == 0) & (b.track_ids == 0)
        assert np.array_equal(a.categories[stuff], b.categories[stuff])
    assert any((a.track_ids != b.track_ids).any() for a, b in zip(both, plain, strict=True))


def test_a_member_matched_with_itself_is_itself(tmp_path, monkeypatch, sources):
    run(monkeypatch, sources, tmp_path / "alone", [vps()])
    twin = vps("twin", identity="another")
    matched_run(monkeypatch, sources, tmp_path / "both", [vps(), twin._replace(weight=0.0)])
    alone, both = (list(result_folders.read_video(tmp_path / n, "video0", CLASSES)) for n in ("alone", "both"))
    assert len(alone) == 6
    for a, b in zip(alone, both, strict=True):
        assert np.mean(a.track_ids != b.track_ids) < 0.002  # masks wait in float16
        assert len(np.unique(b.track_ids)) == 3
