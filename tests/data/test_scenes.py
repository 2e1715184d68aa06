import hashlib

import numpy as np
import pytest

from vps_jax.data import scenes
from vps_jax.datasets import class_table


def scene(video=0, **changes):
    return scenes.make_scene(0, video, **{"height": 108, "width": 192, "num_frames": 12, **changes})


def test_classes_are_six_stuff_and_six_things_of_the_official_list():
    table = class_table("vipseg")
    assert len(scenes.STUFF) == len(scenes.THINGS) == 6
    assert not any(table.is_thing[c] for c in scenes.STUFF)
    assert all(table.is_thing[c] for c in scenes.THINGS)


def test_every_colour_pair_is_worn_by_four_stuff_and_four_thing_classes():
    worn = {(scenes.palette_of(scenes.Draws(k), c), c) for c in scenes.CLASSES for k in range(40)}
    for palette in range(3):
        assert sum((palette, c) in worn for c in scenes.STUFF) == 4
        assert sum((palette, c) in worn for c in scenes.THINGS) == 4


def test_random_words_are_those_of_pcg64():
    assert scenes.Draws(0).integer(0, 2**64 - 1) == np.random.PCG64(0).random_raw()
    assert sorted(scenes.Draws(1).sample(range(5), 5)) == [0, 1, 2, 3, 4]


def test_a_frame_is_a_function_of_seed_video_and_tick():
    first, again = scenes.render(scene(), 5), scenes.render(scene(), 5)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    digests = {
        hashlib.sha256(scenes.render(s, t)[0].tobytes()).hexdigest()
        for s, t in [(scene(), 5), (scene(), 6), (scene(video=1), 5), (scene(height=120), 5)]
    }
    assert len(digests) == 4


@pytest.mark.parametrize("name", sorted(set(scenes.STUFF.values())))
def test_textures_are_told_apart_also_when_mirrored(name):
    y, x = np.mgrid[:36, :36]
    own = scenes.texture(name, y, x, 9)
    assert 0.2 < own.mean() < 0.8
    for other in set(scenes.STUFF.values()) - {name}:
        for shift in range(9):
            for mirrored in (x, -x):
                pattern = scenes.texture(other, y, mirrored + shift, 9)
                assert 0.05 < (pattern != own).mean() < 0.95


def test_mask_holds_the_raw_code_and_things_cover_regions():
    s = scene(video=2)
    image, mask = scenes.render(s, 18)
    assert image.dtype == np.uint8 and mask.dtype == np.uint16 and image.shape == (*mask.shape, 3)
    allowed = {0, *(c + 1 for c, _ in s.regions), *(t.value for t in s.things)}
    assert set(np.unique(mask)) <= allowed
    thing = s.things[-1]  # painted last: its middle is visible in the middle of the video
    assert mask[thing.middle[0] // 16, thing.middle[1] // 16] in {thing.value, 0}
    assert thing.value // 100 - 1 == thing.category


def test_over_many_scenes_there_are_twins_voids_and_three_regions():
    many = [scene(video=i) for i in range(40)]
    values = [[t.category for t in s.things] for s in many]
    assert any(len(set(v)) < len(v) for v in values) and any(len(set(v)) == len(v) for v in values)
    assert all(3 <= len(v) <= 5 for v in values)
    assert {len(s.regions) for s in many} == {2, 3}
    assert {s.void is None for s in many} == {True, False}
    for s in many:  # look-alikes wear the same colours and have different numbers
        assert len({t.value for t in s.things}) == len(s.things)
        assert len({(t.category, t.palette) for t in s.things}) == len({t.category for t in s.things})


def test_motion_is_small_against_size():
    for s in (scene(video=i) for i in range(40)):
        for thing in s.things:
            per_frame = scenes.TICKS_PER_FRAME * max(map(abs, thing.speed))
            assert per_frame < 0.3 * thing.radius
            assert 2 * thing.radius >= 0.12 * 108 * scenes.UNIT
