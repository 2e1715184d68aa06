"""Rules that make segments of carried queries."""

import jax.numpy as jnp
import numpy as np

from vps_jax.infer import video_segments
from vps_jax.infer.video_segments import Areas, Kept, OnlineRule
from vps_jax.types import Geometry

SIZE = Geometry((8, 12), (7, 10), (14, 20))


def kept_of(*classes):
    return Kept(np.arange(len(classes)), np.array(classes), np.full(len(classes), 0.9))


def test_no_object_and_doubt_are_not_kept():
    logits = np.array([[5.0, 0, 0], [0, 0, 5.0], [1.0, 0.9, 0], [0, 5.0, 0]])
    kept = video_segments.kept_queries(logits, 0.8)
    assert kept.queries.tolist() == [0, 3] and kept.classes.tolist() == [0, 1]


def test_stuff_of_one_class_shares_an_id_and_things_do_not():
    areas = Areas(*np.full((3, 4), 10))
    found, ids = video_segments.segments(kept_of(0, 7, 0, 7), areas, things={0}, overlap=0.8)
    assert ids.tolist() == [1, 2, 3, 2]
    told = [(s.id, s.category, s.is_thing, s.query) for s in found]
    assert told == [(1, 0, True, 0), (2, 7, False, 1), (3, 0, True, 2)]


def test_what_is_mostly_hidden_or_empty_is_left_out():
    areas = Areas(np.array([7, 8, 0, 5, 20]), np.array([10, 10, 10, 0, 10]), np.array([7, 8, 0, 0, 10]))
    ids = lambda **how: video_segments.segments(kept_of(0, 0, 0, 0, 0), areas, {0}, 0.8, **how)[1].tolist()  # noqa: E731
    assert ids() == [0, 1, 0, 0, 2]
    assert ids(strict=True, first_id=0) == [-1, -1, -1, -1, 0]


def test_a_pixel_belongs_to_the_best_query_and_is_void_where_that_does_not_cover_it():
    probability = jnp.asarray([[[0.9, 0.8], [0.4, 0.1], [0.6, 0.95]]])[None]  # [t, h, w, n] = [1, 1, 3, 2]
    painted, areas = video_segments.owned(jnp.asarray([1.0, 0.9]), probability)
    assert painted[0, 0].tolist() == [0, -1, 1]
    assert [a.tolist() for a in areas] == [[2, 1], [2, 2], [1, 1]]
    assert video_segments.paint(painted, np.array([4, 7]))[0, 0].tolist() == [4, 0, 7]


def frame(rng, queries=3, classes=4):
    """Sharp classes and masks of one frame: class logits `[q, k + 1]`, mask logits `[h4, w4, q]`."""
    logits = np.zeros((queries, classes + 1))
    logits[np.arange(queries), np.arange(queries)] = 9.0
    return logits, rng.normal(size=(2, 3, queries)) * 4


def test_the_first_frame_online_is_a_video_of_one_frame():
    classes, masks = frame(np.random.default_rng(0))
    ids, found = OnlineRule(score=0.8, overlap=0.5, things={0})(classes, masks, SIZE)
    kept = video_segments.kept_queries(classes, 0.8)
    painted, areas = video_segments.owners(*video_segments.padded(kept, jnp.asarray(masks)[None]), SIZE)
    expected, table = video_segments.segments(kept, areas, {0}, 0.5)
    np.testing.assert_array_equal(ids, video_segments.paint(painted[0], table))
    assert found == expected and ids.shape == SIZE.original


def test_online_identities_last_and_are_never_given_again():
    rng = np.random.default_rng(1)
    rule = OnlineRule(score=0.8, overlap=0.0, things={0, 1, 2, 3})
    classes, masks = frame(rng)
    first = {s.query: s.id for s in rule(classes, masks, SIZE)[1]}
    gone = classes.copy()
    gone[0] = [0, 0, 0, 0, 9.0]  # query 0 is nothing now, and later of another class
    second = {s.query: s.id for s in rule(gone, masks, SIZE)[1]}
    assert 0 not in second and all(first[q] == i for q, i in second.items())
    changed = classes.copy()
    changed[0] = [0, 0, 0, 9.0, 0]
    third = {s.query: s.id for s in rule(changed, masks, SIZE)[1]}
    assert third[0] not in first.values()


def test_online_without_any_segment_is_void():
    classes, masks = frame(np.random.default_rng(0))
    classes[:, -1] = 30.0
    ids, found = OnlineRule(score=0.8, overlap=0.8, things={0})(classes, masks, SIZE)
    assert not found and not ids.any() and ids.shape == SIZE.original
