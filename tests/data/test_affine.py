import numpy as np
import pytest

from vps_jax.data import affine, transforms
from vps_jax.data.sample import Sample

RNG = np.random.default_rng


def views(images, labels, rng, *, flip=0.0, crop_px=(40, 40), crop_together=False):
    """Images and labels of views with a short side of 60."""
    sample = Sample(images, labels, np.zeros(65536, bool), np.zeros(65536, np.int32))
    steps = transforms.Flip(flip), affine.AffineViews(crop_px=crop_px, short_side=60, crop_together=crop_together)
    for step in steps:
        sample = step.apply(sample, rng)
    assert steps[1].output_size(labels.shape[1:]) == crop_px
    return sample.images, sample.labels


def test_matrix_by_hand():
    # a quarter turn about the middle (1, 1) of a 3x3 canvas takes the corner (0, 0) to (2, 0)
    turn = affine.view_matrix((3, 3), 1.0, np.pi / 2, 0.0, 0.0)
    np.testing.assert_allclose(turn @ [0, 0, 1], [2, 0], atol=1e-12)
    double = affine.view_matrix((3, 3), 2.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(double @ [0, 2, 1], [-1, 3], atol=1e-12)
    sheared = affine.view_matrix((3, 5), 1.0, 0.0, np.arctan(0.5), 0.0)  # x moves by half the height over the middle
    np.testing.assert_allclose(sheared @ [2, 2, 1], [2.5, 2], atol=1e-12)
    np.testing.assert_allclose(affine.view_matrix((7, 9), 1.0, 0.0, 0.0, 0.0), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def image_of_a_square(t=3):
    labels = np.full((t, 60, 90), 256 + 1, np.uint16)
    labels[:, 20:40, 30:60] = 512 + 1
    images = np.where(labels[..., None] > 512, 250, 120).astype(np.uint8).repeat(3, -1)
    return images, labels


def test_views_differ_and_labels_follow_the_pixels():
    images, labels = image_of_a_square()
    out, label = views(images, labels, RNG(0))
    assert out.shape == (3, 40, 40, 3) and label.shape == (3, 40, 40)
    assert not np.array_equal(out[0], out[1]) and not np.array_equal(out[1], out[2])
    bright = out[..., 0] > 185
    assert (bright == (label > 512)).mean() > 0.97  # edges are bilinear on one side and nearest on the other


def test_empty_corners_are_black_and_void():
    images, labels = image_of_a_square(1)
    voids = 0
    for seed in range(20):
        out, label = views(images, labels, RNG(seed), crop_px=(60, 90))
        assert set(np.unique(label)) <= {0, 257, 513}
        assert out[label == 0].mean() < 60 if (label == 0).any() else True
        voids += (label == 0).any()
    assert voids > 15


def test_size_stays_inside_the_published_ranges():
    images, labels = image_of_a_square(1)
    areas = [(views(images, labels, RNG(s), crop_px=(60, 90))[1] > 512).sum() for s in range(200)]
    # scale 0.9..1.1 squared; the shear determinant is 1 - tan(a) tan(b) with both below 10 degrees
    low, high = 600 * 0.81 * (1 - np.tan(np.radians(10)) ** 2), 600 * 1.21 * (1 + np.tan(np.radians(10)) ** 2)
    assert low * 0.95 < min(areas) < 0.9 * 600 and 1.1 * 600 < max(areas) < high * 1.05


@pytest.mark.parametrize("together", [False, True])
def test_crop_positions(together, monkeypatch):
    monkeypatch.setattr(affine, "view", lambda image, label, rng: (image[None], label[None]))
    y, x = np.mgrid[:60, :90]
    labels = np.stack([(y * 90 + x).astype(np.uint16)] * 3)
    images = np.zeros((3, 60, 90, 3), np.uint8)
    corners = [views(images, labels, RNG(s), crop_together=together)[1][:, 0, 0] for s in range(100)]
    assert all(len(set(c.tolist())) == 1 for c in corners) == together
    assert len({c[0] for c in corners}) > 50


def test_mirror_is_drawn_once_per_clip(monkeypatch):
    monkeypatch.setattr(affine, "view", lambda image, label, rng: (image[None], label[None]))
    images, labels = image_of_a_square()
    labels[:, :, 0] = 999
    seen = set()
    for seed in range(20):
        label = views(images, labels, RNG(seed), flip=0.5, crop_px=(60, 90))[1]
        sides = {"left" if frame[0, 0] == 999 else "right" for frame in label}
        assert len(sides) == 1
        seen |= sides
    assert seen == {"left", "right"}
