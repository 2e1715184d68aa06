import numpy as np
import pytest

from vps_jax.config import Source
from vps_jax.data import affine, augment, transforms
from vps_jax.data.sample import Sample

RNG = np.random.default_rng


def views(images, labels, rng, *, flip=0.0, crop_px=(40, 40), crop_together=False, short_side=60):
    """Images and labels of views with a short side of 60, or one drawn from several."""
    sample = Sample(images, labels, np.zeros(65536, bool), np.zeros(65536, np.int32))
    source = Source(
        path="", recipe="affine", short_side=short_side, crop_px=crop_px, crop_together=crop_together, flip=flip,
        color=None,
    )  # fmt: skip
    steps = augment.operations(source, source.short_side if isinstance(short_side, int) else short_side[0], 0, "it")
    sample = augment.apply(steps, sample, rng)
    assert augment.output_size(steps, labels.shape[1:]) == crop_px
    return sample.images, sample.labels


def test_matrix_by_hand():
    # a quarter turn about the middle (1, 1) of a 3x3 canvas takes the corner (0, 0) to (2, 0)
    turn = affine.view_matrix((3, 3), 1.0, np.pi / 2, 0.0)
    np.testing.assert_allclose(turn @ [0, 0, 1], [2, 0], atol=1e-12)
    double = affine.view_matrix((3, 3), 2.0, 0.0, 0.0)
    np.testing.assert_allclose(double @ [0, 2, 1], [-1, 3], atol=1e-12)
    # a shear of 30 degrees: [[1, -1/2], [0, cos]] [[cos, 0], [1/2, 1]], for x to the right and y down
    sheared = affine.view_matrix((3, 3), 1.0, 0.0, np.pi / 6)
    np.testing.assert_allclose(sheared[:, 0], [np.sqrt(3) / 2 - 1 / 4, np.sqrt(3) / 4], atol=1e-12)
    np.testing.assert_allclose(sheared[:, 1], [-1 / 2, np.sqrt(3) / 2], atol=1e-12)
    np.testing.assert_allclose(affine.view_matrix((7, 9), 1.0, 0.0, 0.0), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_the_published_shear_is_nearly_a_rotation(monkeypatch):
    """Spec: tarvis 7.8: no skew, hardly any stretch, and turns of up to 30 degrees."""
    seen = []
    monkeypatch.setattr(affine.cv2, "warpAffine", lambda picture, matrix, *_, **__: seen.append(matrix) or picture)
    images, labels = image_of_a_square(1)
    for seed in range(1500):
        affine.view(images[0], labels[0], RNG(seed))
    linear = np.stack(seen[::2])[:, :, :2]  # the image's; the label's is the same
    np.testing.assert_array_equal(linear, np.stack(seen[1::2])[:, :, :2])
    ends = [np.degrees(np.arctan2(linear[:, 1, i], linear[:, 0, i])) for i in range(2)]  # of the axes x and y
    assert np.abs(ends[1] - ends[0] - 90).mean() < 0.5
    stretch = np.linalg.svd(linear, compute_uv=False)
    assert (stretch[:, 0] / stretch[:, 1]).mean() < 1.02
    turns = np.degrees(np.arctan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1]))
    assert -30.2 < turns.min() < -26 and 26 < turns.max() < 30.2 and abs(turns.mean()) < 1
    assert turns.std() == pytest.approx(np.sqrt((40**2 + 20**2) / 12), rel=0.05)  # two uniform draws, added


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
    # scale 0.9..1.1 squared; the determinant of the shear is cos(s) squared with s below 10 degrees
    low, high = 600 * 0.81 * np.cos(np.radians(10)) ** 2, 600 * 1.21
    assert low * 0.95 < min(areas) < 0.9 * 600 and 1.1 * 600 < max(areas) < high * 1.05


def test_short_side_is_drawn_for_every_frame(monkeypatch):
    monkeypatch.setattr(affine, "view", lambda image, label, rng: (image[None], label[None]))
    sizes, resize = [], transforms.resize
    monkeypatch.setattr(transforms, "resize", lambda i, x, size: sizes.append(size) or resize(i, x, size))
    images, labels = image_of_a_square()
    for seed in range(200):
        views(images, labels, RNG(seed), short_side=(40, 44, 48))
    counts = np.unique(np.array(sizes), axis=0, return_counts=True)
    assert counts[0].tolist() == [[40, 60], [44, 66], [48, 72]]
    np.testing.assert_allclose(counts[1], 200, atol=40)
    alike = [len(set(sizes[i : i + 3])) == 1 for i in range(0, len(sizes), 3)]
    assert 5 < sum(alike) < 50  # one clip in nine


def test_crops_at_one_place_keep_their_place_at_every_size(monkeypatch):
    """As the published crop, whose place is a share of the room that a frame has."""
    monkeypatch.setattr(affine, "view", lambda image, label, rng: (image[None], label[None]))
    sizes, resize = [], transforms.resize
    monkeypatch.setattr(transforms, "resize", lambda i, x, size: sizes.append(size) or resize(i, x, size))
    y, x = np.mgrid[:60, :90]
    labels = np.stack([(y * 90 + x).astype(np.uint16)] * 3)
    images = np.zeros((3, 60, 90, 3), np.uint8)
    for seed in range(30):
        settings = {"crop_px": (20, 20), "short_side": (45, 60, 90), "crop_together": True}
        corners = np.stack(divmod(views(images, labels, RNG(seed), **settings)[1][:, 0, 0], 90), axis=1)
        after = np.array(sizes[-3:])
        shares = corners * (after / [60, 90]) / (after - 20)
        assert np.ptp(shares, axis=0).max() < 0.12


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
