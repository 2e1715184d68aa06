"""Windows, flips and scales against a twin that holds the scores of every pixel."""

import dataclasses

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.config import WindowInference
from vps_jax.infer import score_maps, sliding, window_predictor
from vps_jax.infer.clip_model import geometry
from vps_jax.infer.sliding import PassScores, window_starts
from vps_jax.infer.window_predictor import WindowPredictor
from vps_jax.types import ClipPrediction

SMALL = WindowInference(short_side_px=64, max_side_px=200, window_px=64, stride_px=40, size_multiple=32, window_batch=2)


class MeanModel:
    """Scores of a window: its block means times a power of two per class, and the mean of the whole window."""

    semantic_groups = (("COLORS", 6),)

    def apply(self, variables, x, *, method):
        return getattr(self, method)(variables, x)

    def backbone_features(self, variables, images):
        n, t, h, w, c = images.shape
        x = images[:, 0].astype(jnp.float32).reshape(n, h // 4, 4, w // 4, 4, c).mean((2, 4)) / 64
        return jnp.concatenate([x, x.mean((1, 2), keepdims=True) + 0 * x[..., :1]], axis=-1)  # [n, g, g, 6]

    def decode_features(self, variables, x):
        return x * variables["gain"]


class MeanTask:
    """Stands for mask classification: the outputs are scores."""

    def decode(self, outputs):
        return ClipPrediction(None, None, jnp.moveaxis(outputs, -1, 1)[:, :, None])


@pytest.fixture(autouse=True)
def scores_are_outputs(monkeypatch):
    monkeypatch.setattr(window_predictor, "make_task", lambda name, num_classes: MeanTask())


def labels(image, variables, infer):
    return scores_of(image, variables, infer).labels()


def scores_of(image, variables, infer):
    return PassScores(tuple(WindowPredictor(MeanModel(), variables, infer).passes(image)), image.shape[:2])


def slow_scores(image, settings, gain=1.0, mirrored=False, steps=None):
    """`[h, w, 6]` at the test size, window by window."""
    for height, width in steps or sliding.resize_steps(image.shape[:2], settings)[0]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
    height, width, side = *image.shape[:2], settings.window_px
    total, count = (
        np.zeros((max(height, side), max(width, side), 6)),
        np.zeros((max(height, side), max(width, side), 1)),
    )
    padded = np.zeros((*total.shape[:2], 3), np.uint8)
    padded[:height, :width] = image
    for y in window_starts(height, window=side, stride=settings.stride_px):
        for x in window_starts(width, window=side, stride=settings.stride_px):
            part = padded[y : y + side, x : x + side].astype(np.float64)
            blocks = part.reshape(side // 4, 4, side // 4, 4, 3).mean((1, 3)) / 64
            means = np.broadcast_to(blocks.mean((0, 1)), blocks.shape)
            scores = np.concatenate([blocks, means], -1) * gain
            big = [cv2.resize(scores[..., k], (side, side), interpolation=cv2.INTER_LINEAR) for k in range(6)]
            total[y : y + side, x : x + side] += np.stack(big, -1)
            count[y : y + side, x : x + side] += 1
    scores = (total / np.maximum(count, 1))[:height, :width]
    return scores[:, ::-1] if mirrored else scores


def noise(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"),
    [
        (1152, 640, 426, (0, 426, 512)),  # 1280x720 at 640: three windows
        (640, 640, 426, (0,)),
        (641, 640, 426, (0, 1)),
        (200, 128, 85, (0, 72)),
        (298, 128, 85, (0, 85, 170)),
        (50, 64, 40, (0,)),
    ],
)
def test_window_starts(size, window, stride, expected):
    assert window_starts(size, window=window, stride=stride) == expected


@pytest.mark.parametrize(
    ("original", "settings", "expected"),
    [
        ((720, 1280), {}, [((640, 1138), (640, 1152))]),
        ((720, 1280), {"short_side_px": 896, "max_side_px": 3584}, [((896, 1593), (896, 1600))]),
        ((100, 1000), {}, [((205, 2048), (224, 2048))]),
        # several scales at 640: short side at least the window, nothing rounded up
        ((720, 1280), {"scales": (0.5, 1.5), "cover_window": True}, [((640, 1138),) * 2, ((960, 1707),) * 2]),
    ],
)
def test_test_sizes(original, settings, expected):
    assert sliding.resize_steps(original, WindowInference(**settings)) == expected


def test_samples_are_linear_between_pixel_centres():
    matrix = score_maps.sample_matrix(np.array([0.0, 0.5, 1.25, 3.0, 9.0]), 3)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 0], [0.25, 0.75, 0], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("shape", [(80, 150), (150, 80), (61, 61)])
@pytest.mark.parametrize("flip", [False, True])
def test_labels_equal_the_slow_form(shape, flip):
    image = noise(*shape)
    gain = jnp.asarray([2.0, 2.0, 2.0, 2.1, 2.1, 2.1])
    settings = dataclasses.replace(SMALL, flip=flip)
    probabilities = []
    for mirrored in (False, True) if flip else (False,):
        scores = slow_scores(image, settings, np.asarray(gain), mirrored)
        scores = np.stack([cv2.resize(scores[..., k], shape[::-1]) for k in range(6)], -1)
        e = np.exp(scores)
        probabilities.append(e / e.sum(-1, keepdims=True))
    mean = np.mean(probabilities, axis=0)
    found = labels(image, {"gain": gain}, settings)
    assert found.shape == shape and found.dtype == np.uint8 and len(np.unique(found)) >= 4
    best = np.sort(mean, -1)
    sure = best[..., -1] - best[..., -2] > 1e-5
    assert sure.mean() > 0.98 and np.array_equal(found[sure], mean.argmax(-1)[sure])


def test_several_scales_are_averaged():
    image = noise(70, 90)
    settings = dataclasses.replace(SMALL, scales=(0.5, 1.0), cover_window=True)
    mean = np.zeros((70, 90, 6))
    for steps in sliding.resize_steps((70, 90), settings):
        scores = slow_scores(image, settings, 3.0, steps=steps)
        e = np.exp(np.stack([cv2.resize(scores[..., k], (90, 70)) for k in range(6)], -1))
        mean += e / e.sum(-1, keepdims=True) / 2
    found = labels(image, {"gain": 3.0}, settings)
    best = np.sort(mean, -1)
    sure = best[..., -1] - best[..., -2] > 1e-5
    assert np.array_equal(found[sure], mean.argmax(-1)[sure])


def test_a_frame_smaller_than_the_window_is_padded_with_black():
    settings = dataclasses.replace(SMALL, short_side_px=32)
    image = noise(32, 50)
    (one,) = scores_of(image, {"gain": 1.0}, settings).passes
    assert one.size == (32, 64) and one.scores.shape == (1, 1, 16, 16, 6)
    assert not one.scores[0, 0, 8:, :, :3].any() and one.scores[0, 0, :8, :, :3].all()


def test_scores_on_the_grid_of_a_clip_model():
    """The clip model sees 64x113 pixels of a 64x128 input; cell 27 ends at pixel 112, cell 29 lies in the padding."""
    image = noise(85, 150)
    sizes = geometry((85, 150), short_side=64, max_side=200)
    assert sizes.resized == (64, 113) and sizes.padded == (64, 128)
    scores = slow_scores(image, SMALL)  # 64 x 128 after rounding up
    found = np.asarray(scores_of(image, {"gain": 1.0}, SMALL).on_grid(sizes, [1, 4]))
    assert found.shape == (2, 16, 32)
    rows = [4 * i + 2 for i in range(16)]  # centres lie on pixel borders: the mean of two pixels
    lines = (scores[np.array(rows) - 1] + scores[np.array(rows)]) / 2
    for cell in (0, 13, 27):
        at = (4 * cell + 2) * 128 / 113 - 0.5
        low = int(at)
        column = lines[:, low] * (1 - at + low) + lines[:, low + 1] * (at - low)
        np.testing.assert_allclose(found[:, :, cell], column[:, [1, 4]].T, rtol=1e-5)
    np.testing.assert_allclose(found[:, :, 30], lines[:, -1, [1, 4]].T, rtol=1e-5)


def test_scores_of_a_mirrored_frame_lie_where_they_belong():
    """A model that sees single pixels gives the same scores either way."""
    image = noise(64, 96)
    sizes = geometry((64, 96), short_side=64, max_side=200)
    plain = scores_of(image, {"gain": 1.0}, SMALL).on_grid(sizes, [0, 1, 2])
    both = scores_of(image, {"gain": 1.0}, dataclasses.replace(SMALL, flip=True)).on_grid(sizes, [0, 1, 2])
    np.testing.assert_allclose(plain, both, atol=0.02)
    assert float(jnp.abs(plain[..., ::-1] - plain).max()) > 0.5


def test_the_network_for_export_has_the_bits_of_the_predictor():
    image = noise(64, 104)  # two windows, 40 pixels apart
    predictor = WindowPredictor(MeanModel(), {"gain": jnp.float32(1.5)}, SMALL)
    network = predictor.network(image.shape[:2])
    windows = np.stack([image[:, :64], image[:, 40:]])
    assert network.inputs["frames"].shape == windows.shape and "128x64 pixels" in network.about
    (found,) = network.function(network.variables, windows)
    assert np.array_equal(found, predictor._scores(list(windows))) and found.shape == (2, 16, 16, 6)


def test_the_model_is_compiled_once_for_frames_of_any_size():
    model = WindowPredictor(MeanModel(), {"gain": 1.0}, SMALL)
    for shape in ((64, 64), (64, 100), (90, 64), (100, 100)):
        list(model.passes(noise(*shape)))
    assert model.programs == {"windows 2x64x64": 1}
