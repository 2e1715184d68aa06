import cv2
import numpy as np
import pytest

from vps_jax import datasets
from vps_jax.config import Source
from vps_jax.data import augment, photometric
from vps_jax.data.sample import Sample

RNG = np.random.default_rng
VSPW = datasets.label_code("vspw")


def recipe(short, **changes):
    settings = {"ratio": (0.5, 2.0), "max_side": 128, "crop_px": (40, 40), "flip": 0.5, **changes}
    source = Source(path="", short_side=short, task="mask_classification", recipe="photometric", **settings)
    return augment.operations(source, short, 0, "source")


def augmented(images, labels, seed, short, **changes):
    sample = Sample(images, labels, VSPW.is_instance, VSPW.classes)
    sample = augment.apply(recipe(short, **changes), sample, RNG(seed))
    assert sample.pad == (124, 116, 104)
    return sample.images, sample.labels


@pytest.mark.parametrize(
    ("size", "limits", "ratio", "expected"),
    [
        ((720, 1280), (2048, 640), 1.0, (640, 1138)),  # bound by the short side: 1280 * 640 / 720 = 1137.8
        ((720, 1280), (2048, 640), 0.5, (320, 569)),
        ((100, 800), (2048, 640), 1.0, (256, 2048)),  # bound by the long side
        ((720, 1280), (2048, 640), 1.2345, (790, 1404)),  # limits 2528 and 790 after the cut; 1280 * 790 / 720
    ],
)
def test_scaled_size(size, limits, ratio, expected):
    assert photometric.scaled_size(size, *limits, ratio) == expected


def test_a_crop_that_one_class_fills_is_drawn_again():
    labels = np.ones((1, 20, 200), np.uint16)
    labels[:, :, 190:] = 2  # few positions have both classes
    labels[:, :, :5] = 255
    hits = 0
    for seed in range(60):
        crop = labels[photometric.crop_window(VSPW.classes[labels], (20, 20), RNG(seed))]
        assert crop.shape == (1, 20, 20)
        hits += (crop == 2).mean() > 0.25
    one_try = sum(RNG(s).integers(0, 181) >= 176 for s in range(6000)) / 6000
    assert hits / 60 > 5 * one_try
    assert photometric.crop_window(VSPW.classes[labels[:, :7, :9]], (20, 20), RNG(0)) == np.s_[:, 0:20, 0:20]


def test_void_does_not_count_as_a_class():
    labels = np.full((1, 4, 4), 7, np.uint16)
    labels[:, :, :3] = 255
    drawn = []

    class Recorder:
        def integers(self, low, high):
            drawn.append(high)
            return 0

    photometric.crop_window(VSPW.classes[labels], (4, 4), Recorder())
    assert len(drawn) == 2 * (photometric.CROP_TRIES + 1)  # never good: one class beside void


def test_levels_clip_and_cut():
    image = np.array([[[0, 100, 255]]], np.uint8)
    assert photometric.scale_levels(image, 1.5, 0.0).tolist() == [[[0, 150, 255]]]
    assert photometric.scale_levels(image, 1.0, -0.5).tolist() == [[[0, 99, 254]]]
    assert photometric.scale_levels(image, 1.0, 32.0).tolist() == [[[32, 132, 255]]]


def test_hue_turns_and_saturation_scales():
    red = np.array([[[200, 0, 0]]], np.uint8)
    green = photometric.through_hsv(red, 0, (np.arange(256) + 60) % 180)  # 60 steps of two degrees
    assert green.tolist() == [[[0, 200, 0]]]
    pale = photometric.through_hsv(red, 1, np.clip(np.arange(256) * 0.5, 0, 255))
    np.testing.assert_allclose(pale, [[[200, 100, 100]]], atol=2)


def test_distortions_come_half_of_the_time_each():
    image = RNG(0).integers(60, 200, (8, 8, 3), dtype=np.uint8)
    same = sum(np.array_equal(photometric.distort(image, RNG(s)), image) for s in range(800))
    assert 0.5**4 * 800 * 0.5 < same < 0.5**4 * 800 * 1.6


def test_frame_and_label_stay_together():
    labels = np.ones((1, 60, 100), np.uint16)
    labels[:, 20:50, 30:80] = 61
    images = np.where(labels[..., None] == 61, 255, 0).astype(np.uint8).repeat(3, -1)
    for seed in range(30):
        image, label = augmented(images, labels, seed, 60, ratio=(1.0, 1.0), max_side=100)
        assert image.shape[1:3] == label.shape[1:] == (40, 40)
        grey = image.astype(int).sum(-1)
        if len(np.unique(label)) == 2:
            assert grey[label == 61].min() > grey[label == 1].max()


def test_small_frames_stay_smaller_than_the_crop_and_sizes_agree_with_the_foretold():
    images, labels = np.zeros((1, 30, 50, 3), np.uint8), np.ones((1, 30, 50), np.uint16)
    sizes = set()
    for seed in range(30):
        image, _ = augmented(images, labels, seed, 48)
        sizes.add(image.shape[1:3])
        assert image.shape[1] <= 40 and image.shape[2] <= 40
    assert (40, 40) in sizes and len(sizes) > 3
    assert augment.output_size(recipe(48), (30, 50)) == (40, 40)


def test_labels_are_nearest_as_published():
    labels = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
    images = np.zeros((1, 3, 4, 3), np.uint8)
    _, label = augmented(images, labels, 0, 6, ratio=(1.0, 1.0), max_side=999, crop_px=(6, 8), flip=0.0)
    np.testing.assert_array_equal(label[0], cv2.resize(labels[0], (8, 6), interpolation=cv2.INTER_NEAREST))


@pytest.mark.parametrize("name", ["vipseg", "vspw", "panoptic"])
def test_crops_filled_by_one_class_are_avoided_in_every_code(name):
    """The same picture in three codes: a class with two instances over most of it, and a band of another."""
    code = datasets.label_code(name)
    large, other = {"vipseg": ((6100, 6101), 5), "vspw": ((61, 61), 5), "panoptic": ((257, 258), 1024)}[name]
    labels = np.full((1, 60, 120), large[0], np.uint16)
    labels[:, :, 40:] = large[1]
    labels[:, 35:, 60:] = other
    filled = 0
    for seed in range(300):
        window = photometric.crop_window(code.classes[labels], (30, 30), RNG(seed))
        counts = np.unique(code.classes[labels[window]], return_counts=True)[1]
        filled += counts.max() >= 0.75 * counts.sum()
    blind = sum(
        np.unique(code.classes[labels[:, t : t + 30, l : l + 30]], return_counts=True)[1].max() >= 675
        for t, l in zip(*RNG(0).integers(0, (31, 91), (300, 2)).T, strict=True)
    )
    assert blind > 150 and filled < 0.1 * blind
