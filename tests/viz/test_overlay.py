"""Panoptic frames over images: colours, contours, names."""

import numpy as np

from vps_jax import taxonomy
from vps_jax.types import PanopticFrame
from vps_jax.viz import overlay as module

TABLE = taxonomy.class_table("vipseg")
SKY, PERSON = 28, 60


def scene(height=120, width=200):
    """Sky with person 3 in a box and an unknown stripe on the right."""
    categories = np.full((height, width), SKY, np.uint8)
    track_ids = np.zeros((height, width), np.int32)
    categories[20:100, 30:90], track_ids[20:100, 30:90] = PERSON, 3
    categories[:, -10:] = module.UNKNOWN
    return PanopticFrame("00000001", categories, track_ids)


def test_colours_tell_stuff_by_class_and_things_by_track():
    colors = module.colorize(scene(), TABLE)
    assert tuple(colors[5, 5]) == TABLE.colors[SKY]
    assert tuple(colors[50, 50]) == module.track_color(3)
    assert tuple(colors[50, 195]) == (0, 0, 0)


def test_track_colours_are_strong_and_differ():
    colors = np.array([module.track_color(i) for i in range(1, 30)])
    assert len(np.unique(colors, axis=0)) == 29
    gaps = np.abs(colors[1:] - colors[:-1]).sum(1)
    assert gaps.min() > 150  # neighbouring ids are never alike
    assert (colors.max(1) - colors.min(1)).min() > 150
    assert module.track_color(7) == module.track_color(7)


def test_contours_lie_between_segments():
    edge = module.contours(scene())
    assert edge[50, 29] and edge[50, 89] and edge[19, 50] and edge[99, 50] and edge[5, 189]
    assert not edge[50, 50] and not edge[5, 5]
    ys, xs = np.nonzero(edge[:, :150])
    assert ys.min() == 19 and ys.max() == 99 and xs.min() == 29 and xs.max() == 89


def test_touching_tracks_of_one_class_are_parted():
    frame = PanopticFrame("1", np.full((4, 8), PERSON, np.uint8), np.repeat([[1] * 4 + [2] * 4], 4, axis=0))
    assert module.contours(frame)[:, 3].all() and module.contours(frame).sum() == 4


def test_overlay_mixes_half_and_half():
    image = np.full((120, 200, 3), 100, np.uint8)
    out = module.overlay(image, scene(), TABLE, names=False)
    assert out.shape == image.shape and out.dtype == np.uint8
    expected = (100 + np.array(module.track_color(3))) / 2
    assert np.abs(out[50, 50] - expected).max() <= 1
    assert (out[50, 29] == 255).all()
    assert (image == 100).all()  # the input is not drawn on


def test_names_are_written_inside_their_segment():
    image = np.full((120, 200, 3), 100, np.uint8)
    plain = module.overlay(image, scene(), TABLE, names=False)
    named = module.overlay(image, scene(), TABLE)
    changed = (plain != named).any(-1)
    ys, xs = np.nonzero(changed[:, 30:90])
    assert len(ys) > 50 and 30 < ys.mean() < 90  # person 3
    assert changed[:, 100:190].any()  # sky


def test_a_picture_of_a_few_pixels_is_drawn():
    tiny = PanopticFrame("1", np.full((4, 5), SKY, np.uint8), np.zeros((4, 5), np.int32))
    assert module.overlay(np.zeros((4, 5, 3), np.uint8), tiny, TABLE).shape == (4, 5, 3)
    void = PanopticFrame("1", np.full((4, 5), module.UNKNOWN, np.uint8), np.zeros((4, 5), np.int32))
    assert not module.overlay(np.zeros((4, 5, 3), np.uint8), void, TABLE).any()
