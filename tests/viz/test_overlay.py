"""Panoptic frames over images: colours, contours, names."""

import colorsys

import numpy as np
import pytest

from vps_jax.datasets.classes import class_table
from vps_jax.types import PanopticFrame, UserError
from vps_jax.viz import overlay as module

TABLE = class_table("vipseg")
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


@pytest.mark.parametrize("tracks", [40, 400])
def test_a_frame_is_painted_as_pixel_by_pixel(tracks):
    """With fewer segments than a byte tells apart, and with more."""
    rng = np.random.default_rng(0)
    categories = rng.choice([SKY, 7, module.UNKNOWN], (60, 80)).astype(np.uint8)
    track_ids = np.where(rng.random((60, 80)) < 0.5, rng.integers(1, tracks + 1, (60, 80)), 0).astype(np.int32)
    categories[track_ids > 0] = PERSON
    frame, image = PanopticFrame("1", categories, track_ids), rng.integers(0, 256, (60, 80, 3), np.uint8)
    colors, drawn = module.colorize(frame, TABLE), module.overlay(image, frame, TABLE, module.Style(names=False))
    for y, x in np.ndindex(60, 80):
        track, category = int(track_ids[y, x]), int(categories[y, x])
        expected = module.track_color(track) if track else (*TABLE.colors, *[(0, 0, 0)] * 200)[category]
        assert tuple(colors[y, x]) == tuple(expected)
        right, below = ((track_ids[at], categories[at]) for at in ((y, min(x + 1, 79)), (min(y + 1, 59), x)))
        if right != (track, category) or below != (track, category):
            assert (drawn[y, x] == 255).all()
        else:
            assert np.abs(drawn[y, x] - (image[y, x] / 2 + np.array(expected) / 2)).max() <= 0.5


def test_overlay_mixes_half_and_half():
    image = np.full((120, 200, 3), 100, np.uint8)
    out = module.overlay(image, scene(), TABLE, module.Style(names=False))
    assert out.shape == image.shape and out.dtype == np.uint8
    expected = (100 + np.array(module.track_color(3))) / 2
    assert np.abs(out[50, 50] - expected).max() <= 1
    assert (out[50, 29] == 255).all()
    assert (image == 100).all()  # the input is not drawn on


def test_names_are_written_inside_their_segment():
    image = np.full((120, 200, 3), 100, np.uint8)
    plain = module.overlay(image, scene(), TABLE, module.Style(names=False))
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


def test_no_track_looks_like_the_sky():
    """VIPSeg's sky is pink, and so is no track; its grass, road and trees are red."""
    for name in ("sky", "grass", "road", "tree"):
        red, green, blue = (level / 255 for level in TABLE.colors[TABLE.names.index(name)])
        hue = colorsys.rgb_to_hsv(red, green, blue)[0]
        for track in range(1, 200):
            other = colorsys.rgb_to_hsv(*(level / 255 for level in module.track_color(track)))[0]
            assert min(abs(hue - other), 1 - abs(hue - other)) > 0.02, (name, track)


def test_classes_that_are_not_asked_for_are_left_as_they_are():
    image = np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)
    out = module.overlay(image, scene(), TABLE, module.Style(classes=["person"]))
    changed = (out != image).any(-1)
    assert changed[30:90, 40:80].mean() > 0.9
    assert not changed[:15].any() and not changed[:, 100:].any()


def test_a_class_that_is_not_there_and_a_wrong_opacity_are_named():
    for style, message in ((module.Style(classes=["perso"]), "class 'perso'"), (module.Style(opacity=2), "opacity 2")):
        with pytest.raises(UserError, match=message):
            module.overlay(np.zeros((120, 200, 3), np.uint8), scene(), TABLE, style)


def test_names_do_not_cover_each_other():
    """Many small things in one place: the names that are written have room of their own."""
    categories, track_ids = np.full((120, 200), SKY, np.uint8), np.zeros((120, 200), np.int32)
    for i in range(12):
        categories[50:60, 60 + 4 * i : 64 + 4 * i], track_ids[50:60, 60 + 4 * i : 64 + 4 * i] = PERSON, i + 1
    frame = PanopticFrame("1", categories, track_ids)
    seen = module.named_segments(frame, module.segments_in(frame))
    assert {one.track for one in seen} == set(range(13))
    taken = []
    for one in seen:
        module.write_text(np.zeros((120, 200, 3), np.uint8), module.title(one, TABLE), (100, 55), 0.35, taken)
    assert 3 <= len(taken) < 13
    for i, a in enumerate(taken):
        assert not [b for b in taken[:i] if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]


def test_a_legend_shows_colours_and_names():
    image = np.full((240, 400, 3), 100, np.uint8)
    frame = scene(240, 400)
    plain, legend = (module.overlay(image, frame, TABLE, module.Style(names=False, legend=on)) for on in (False, True))
    corner = legend[:60, :160].reshape(-1, 3).tolist()
    assert list(TABLE.colors[SKY]) in corner and list(module.track_color(3)) in corner
    assert np.array_equal(plain[100:], legend[100:])
    both = module.overlay(image, frame, TABLE, module.Style(legend=True))
    assert np.array_equal(both[:30, :60], legend[:30, :60])  # names keep away from it


def test_opacity_mixes_as_asked():
    image = np.full((120, 200, 3), 100, np.uint8)
    for opacity, expected in ((0.0, [100] * 3), (1.0, module.track_color(3))):
        style = module.Style(opacity=opacity, names=False)
        assert module.overlay(image, scene(), TABLE, style)[50, 50].tolist() == list(expected)
