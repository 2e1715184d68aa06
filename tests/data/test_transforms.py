import numpy as np
import pytest

from vps_jax.config import Color, Source
from vps_jax.data import augment, sample, transforms
from vps_jax.data.sample import Sample, looked_up, pixel_counts

RNG = np.random.default_rng


def recipe(name, short, objects=0, **changes):
    """The operations of a recipe without mirror image, crop and colour, unless they are asked for."""
    still = {"flip": 0.0, "color": None, **changes}
    return augment.operations(Source(path="", short_side=short, recipe=name, **still), short, objects, "source")


def sample_of(images, labels, wanted=None):
    wanted = np.zeros(65536, bool) if wanted is None else wanted
    return Sample(images, labels, wanted, labels_are_classes)


labels_are_classes = np.arange(65536, dtype=np.int32) - 1


@pytest.mark.parametrize(
    ("size", "crop", "short", "longest", "expected"),
    [
        ((720, 1280), (0.75, 0.5), 512, 1333, (512, 607)),  # spec: tarvis 1
        ((720, 1280), None, 576, 1333, (576, 1024)),  # spec: tarvis 1
        ((1280, 720), (0.75, 0.5), 512, 1333, (1333, 500)),  # 960x360, bound by the long side
        ((108, 192), (0.75, 0.5), 108, 128, (108, 128)),
    ],
)
def test_sizes_worked_by_hand(size, crop, short, longest, expected):
    assert augment.output_size(recipe("clip", short, crop=crop, max_side=longest), size) == expected


def test_padded_size():
    assert transforms.padded_size((512, 607), 64) == (512, 640)
    assert transforms.padded_size((1, 64), 64) == (64, 64)


def test_pad_is_grey_and_void():
    images, labels = np.zeros((1, 2, 3, 3), np.uint8), np.ones((1, 2, 3), np.uint16)
    images, labels = transforms.pad(images, labels, (4, 5))
    assert images.shape == (1, 4, 5, 3) and labels.shape == (1, 4, 5)
    assert (images[0, 2:] == 128).all() and (images[0, :2, 3:] == 128).all() and (images[0, :2, :3] == 0).all()
    assert labels.sum() == 6 and (labels[0, :2, :3] == 1).all()


def test_labels_resize_to_the_nearest_pixel_centre():
    # four pixels to two: centres 0.5 and 2.5 of the old grid fall on pixels 1 and 3 (ties go right)
    labels = np.array([[[1, 300, 5, 6500]]], np.uint16)
    images = np.array([0, 100, 200, 100], np.uint8)[None, None, :, None].repeat(3, -1)
    small, names = transforms.resize(images, labels, (1, 2))
    assert names.tolist() == [[[300, 6500]]] and names.dtype == np.uint16
    assert small[0, 0, :, 0].tolist() == [50, 150]  # bilinear without antialias: mean of the two middle neighbours


def slow_twin_of_touching(low, high, size, limit):
    return [s for s in range(limit - size + 1) if any(s <= cell < s + size for cell in range(low, high + 1))]


@pytest.mark.parametrize(("low", "high", "size", "limit"), [(3, 5, 4, 10), (0, 0, 3, 6), (5, 5, 2, 6), (0, 9, 10, 10)])
def test_crop_positions_touch_the_box(low, high, size, limit):
    seen = {transforms.touching(low, high, size, limit, RNG(s)) for s in range(300)}
    assert sorted(seen) == slow_twin_of_touching(low, high, size, limit)


def test_crop_holds_a_quarter_of_the_instances():
    instances = np.zeros((2, 20, 30), bool)
    instances[0, 2:6, 3:9] = True
    instances[1, 4:8, 5:11] = True
    for seed in range(100):
        top, left = transforms.crop_corner(instances, (15, 15), RNG(seed))
        assert instances[:, top : top + 15, left : left + 15].sum() >= 12


def test_crop_counts_a_pixel_once_however_often_it_shows_an_instance():
    """Spec: tarvis 7.6: a quarter of the objects' union. The small one is there in all frames, the large one in one."""
    instances = np.zeros((6, 30, 40), bool)
    instances[:, 12:15, 33:39] = True  # 18 pixels; every second crop that touches the objects holds them all
    instances[3, 6:16, 2:12] = True  # 100 pixels, so 29 are a quarter
    held = []
    for seed in range(300):
        top, left = transforms.crop_corner(instances, (18, 20), RNG(seed))
        held.append(instances[:, top : top + 18, left : left + 20].any(axis=0).sum())
    assert np.mean(np.array(held) >= 29) > 0.99  # ten places are tried


def test_preserving_crop_never_cuts_what_fits_and_takes_every_place():
    """Spec: tarvis 7.6: drawn from the valid places."""
    instances = np.zeros((1, 20, 30), bool)
    instances[0, 3:15, 8:20] = True  # a crop of 15x16 starts at rows 0..3 and columns 4..8
    corners = [transforms.crop_corner(instances, (15, 16), RNG(seed), whole=True) for seed in range(2000)]
    places, counts = np.unique(corners, axis=0, return_counts=True)
    assert places.tolist() == [[top, left] for top in range(4) for left in range(4, 9)]
    np.testing.assert_allclose(counts, 100, atol=45)
    for seed in range(500):
        rng = RNG(seed)
        instances = np.zeros((1, 20, 30), bool)
        (y, x), (h, w) = rng.integers(0, (6, 10)), rng.integers(1, (15, 22))
        instances[0, y : y + h, x : x + w] = True
        top, left = transforms.crop_corner(instances, (15, 22), rng, whole=True)
        assert instances[0, top : top + 15, left : left + 22].sum() == h * w


def test_crop_that_cannot_succeed_is_forced():
    instances = np.zeros((1, 20, 20), bool)
    instances[0, 0, 0] = instances[0, 0, 19] = instances[0, 19, 0] = instances[0, 19, 19] = True
    sums = []
    for seed in range(20):
        top, left = transforms.crop_corner(instances, (4, 4), RNG(seed), whole=True)
        sums.append(int(instances[0, top : top + 4, left : left + 4].sum()))
        assert 0 <= top <= 16 and 0 <= left <= 16
    assert max(sums) == 1  # the best there is


def test_crop_without_instances_is_anywhere():
    corners = {transforms.crop_corner(np.zeros((1, 3, 3), bool), (2, 2), RNG(s)) for s in range(60)}
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}


def still(**changes):
    return Color(**{"hue": 0, "saturation": 0, "contrast": (1.0, 1.0), "brightness": 0, **changes})


def test_colour_without_strength_changes_nothing():
    images = RNG(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    for seed in range(12):
        np.testing.assert_array_equal(transforms.jitter_color(images, still(), RNG(seed)), images)


def test_saturation_of_grey_stays_and_of_colour_moves():
    grey, red = np.full((1, 1, 1, 3), 90, np.uint8), np.array([200, 100, 100], np.uint8)[None, None, None]
    low = [int(transforms.jitter_color(red, still(saturation=30), RNG(s))[0, 0, 0, 1]) for s in range(100)]
    # saturation is 127.5 of 255: 30 more leave 200 * (1 - 157.5 / 255) = 76 green, 30 less leave 124
    assert min(low) == pytest.approx(76, abs=2) and max(low) == pytest.approx(124, abs=2)
    more = [transforms.jitter_color(grey, still(hue=10), RNG(s)) for s in range(20)]
    assert all((m == 90).all() for m in more)


def test_contrast_turns_around_127():
    grey = np.array([27, 127, 227], np.uint8)[None, None, :, None].repeat(3, -1)
    out = transforms.jitter_color(grey, still(contrast=(0.5, 0.5)), RNG(1)).astype(int)
    np.testing.assert_allclose(out[0, 0, :, 0], [77, 127, 177], atol=2)


def test_contrast_is_rounded():
    """Truncated, as published, levels would fall by half a level in the mean."""
    levels = np.arange(60, 190, dtype=np.uint8)[None, None, :, None].repeat(3, -1)
    out = transforms.jitter_color(levels, still(contrast=(0.95, 0.95)), RNG(0))[0, 0, :, 0]
    np.testing.assert_allclose(out, 127 + 0.95 * (levels[0, 0, :, 0] - 127.0), atol=0.5)
    assert abs(np.mean(out - (127 + 0.95 * (levels[0, 0, :, 0] - 127.0)))) < 0.1


def test_brightness_and_hue_move_as_far_as_allowed():
    grey = np.full((1, 1, 1, 3), 100, np.uint8)
    levels = [transforms.jitter_color(grey, still(brightness=20), RNG(s)).mean() for s in range(200)]
    assert min(levels) < 85 and max(levels) > 115 and max(levels) < 130
    red = np.zeros((1, 1, 1, 3), np.uint8)
    red[..., 0] = 200
    greens = [int(transforms.jitter_color(red, still(hue=10), RNG(s))[0, 0, 0, 1]) for s in range(100)]
    # 10 / 255 * 180 is 7 steps of two degrees: green rises to 14 / 60 of the maximum
    assert max(greens) == pytest.approx(200 * 14 / 60, abs=6)


def test_colour_is_the_same_for_all_frames():
    frame = RNG(0).integers(0, 256, (1, 5, 7, 3), dtype=np.uint8)
    out = transforms.jitter_color(np.concatenate([frame, frame]), Color(), RNG(4))
    np.testing.assert_array_equal(out[0], out[1])


def test_flip_mirrors_images_and_labels_together():
    images = RNG(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    labels = RNG(1).integers(0, 9, (2, 4, 6)).astype(np.uint16)
    out = augment.apply(recipe("clip", 4, flip=1.0), sample_of(images, labels), RNG(0))
    np.testing.assert_array_equal(out[0], images[:, :, ::-1])
    np.testing.assert_array_equal(out[1], labels[:, :, ::-1])


def test_augmented_size_is_the_foretold_one_and_pixels_stay_with_labels():
    labels = np.zeros((2, 40, 60), np.uint16)
    labels[:, 10:30, 20:40] = 300
    images = np.where(labels[..., None] == 300, 200, 50).astype(np.uint8).repeat(3, -1)
    is_instance = np.arange(65536) >= 300
    for seed in range(20):
        steps = recipe("clip", 30, flip=0.5, crop=(0.75, 0.5))
        image, label, *_ = augment.apply(steps, sample_of(images, labels, is_instance), RNG(seed))
        assert image.shape[1:3] == label.shape[1:] == augment.output_size(steps, (40, 60)) == (30, 30)
        np.testing.assert_array_equal(label > 0, image[..., 0] > 125)


def test_objects_of_a_vos_clip_are_chosen_in_its_first_frame():
    labels = np.zeros((2, 20, 30), np.uint16)
    for i in range(4):
        labels[0, 5 * i : 5 * i + 3, 2:6] = 257 + i
    labels[1, :, 20:24] = 400  # enters later
    images, wanted = np.zeros((*labels.shape, 3), np.uint8), np.arange(65536) > 256
    seen = set()
    for seed in range(40):
        steps = recipe("vos", 20, objects=2, task="vos", crop=(1.0, 0.5), crop_rule="preserving")
        out = augment.apply(steps, sample_of(images, labels, wanted), RNG(seed))
        chosen = np.flatnonzero(out.wanted)
        assert len(chosen) == 2 and set(chosen) <= {257, 258, 259, 260}
        assert set(np.unique(out.labels[0])) >= set(chosen)  # the crop looks at the first frame alone
        seen.add(tuple(chosen))
    assert len(seen) == 6
    few = augment.apply(recipe("vos", 20, objects=9, task="vos"), sample_of(images, labels, wanted), RNG(0))
    assert np.flatnonzero(few.wanted).tolist() == [257, 258, 259, 260]


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (3, 4, 1, 3), (2, 6, 9)])
def test_contiguous_frames_are_those_of_numpy(shape):
    frames = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8 if len(shape) == 4 else np.uint16)
    for view in (frames, frames[:, :, ::-1], frames[:, 1:, ::-1][:, :, :-1], frames[:1][[0, 0]][:, :, ::-1]):
        found = transforms.contiguous(view)
        assert found.flags.c_contiguous and found.dtype == view.dtype
        np.testing.assert_array_equal(found, view)


def test_pixel_counts_are_exact():
    labels = np.random.default_rng(0).integers(0, 65536, (3, 20, 30)).astype(np.uint16)
    labels[:, 5:] = 65535
    for part in (labels, labels[0], labels[:, ::-1, ::2]):
        np.testing.assert_array_equal(pixel_counts(part), np.bincount(part.ravel(), minlength=65536))
    assert pixel_counts(np.zeros((1, 4097, 4097), np.uint16))[0] == 4097**2  # float32 ends at 2^24 ones


@pytest.mark.parametrize("wide", [True, False])
def test_entries_of_label_values(wide, monkeypatch):
    monkeypatch.setattr("vps_jax.data.sample.WIDE_TABLES", wide and sample.WIDE_TABLES)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 65536, (2, 31, 47), np.uint16)
    for table in (rng.random(65536) < 0.5, rng.permutation(65536).astype(np.uint16)):
        for part in (labels, labels[:, :, ::-1], labels[:, 3:20, 5:40], labels[:1]):
            found = looked_up(table, part)
            assert found.dtype == table.dtype
            np.testing.assert_array_equal(found, table[part])
