"""The golden TarViS cases: model through the converter, inputs, stored attention masks; all read from the manifests."""

import functools
import json
import pathlib
import re

import golden_files
import jax
import numpy as np
import weights_rule

from vps_jax import convert, models
from vps_jax.ops.levels import LEVELS

FINETUNE = (("CITYSCAPES_VPS", 19), ("KITTI_STEP", 19), ("OVIS", 25), ("VIPSEG", 124), ("YOUTUBE_VIS", 40))
SWIN_TINY = {
    "name": "tarvis",
    "backbone": "swin_tiny",
    "semantic_groups": FINETUNE,
    "instance_queries": 128,
    "hidden_dim": 256,
    "num_heads": 8,
    "neck_layers": 6,
    "neck_ffn_dim": 1024,
    "decoder_layers": 9,
    "decoder_ffn_dim": 2048,
    "vos": True,
    "drop_path_rate": 0.3,
    "remat": False,
    "dtype": "float32",
}
KEYS = "tarvis_swin_tiny_keys.json"


def published(listing: dict, seed: int) -> dict[str, np.ndarray]:
    """A published state dict of rule-made weights, with its computed entries."""
    arrays = weights_rule.make_all(listing, seed)
    for name, (shape, dtype, _) in listing.items():
        if name.endswith("relative_position_index"):
            window = round(shape[0] ** 0.5)
            arrays[name] = weights_rule.relative_position_index(window).astype(dtype)
    arrays["pixel_mean"] = np.float32([123.675, 116.28, 103.53])
    arrays["pixel_std"] = np.float32([58.395, 57.12, 57.375])
    arrays["vos_query_extractor.bg_grid_size"] = np.array([4, 4])
    assert set(arrays) == set(listing)
    return arrays


@functools.cache
def variables(folder: pathlib.Path, seed: int) -> dict:
    """Swin-T variables of the rule's weights, through the converter."""
    listing = json.loads((folder / KEYS).read_text())
    return jax.device_put(convert.to_params(published(listing, seed), SWIN_TINY))


@functools.cache
def network():
    return models.build(SWIN_TINY)


def clip_of(folder: pathlib.Path, manifest: dict) -> np.ndarray:
    """The manifest's clip, not padded, uint8 `[t, h, w, 3]`."""
    file, name = manifest["input"].split(":")
    with np.load(folder / file) as clips:
        return clips[name]


def pad(array: np.ndarray, manifest: dict, value) -> np.ndarray:
    """`[t, h, w, ...]` to the manifest's padded height and width."""
    missing = [n - have for n, have in zip(manifest["padded_height_width"], array.shape[1:3], strict=True)]
    return np.pad(array, [(0, 0), *((0, n) for n in missing), *[(0, 0)] * (array.ndim - 3)], constant_values=value)


@functools.lru_cache(maxsize=2)
def neck_maps(folder: pathlib.Path, seed: int, clip: str, size: tuple[int, int]):
    """The neck's output for a clip, computed once for all cases that share it."""
    model = network()

    @jax.jit
    def run(variables, images):
        features = model.apply(variables, images, method="backbone_features")
        return model.apply(variables, features, method="neck_maps")

    manifest = {"input": clip, "padded_height_width": size}
    return run(variables(folder, seed), pad(clip_of(folder, manifest), manifest, value=128)[None])


def maps_of(folder: pathlib.Path, manifest: dict):
    return neck_maps(folder, manifest["seed"], manifest["input"], tuple(manifest["padded_height_width"]))


def stored_masks(manifest: dict, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The nine stored attention masks, bool `[q, s_n]`."""
    shapes = manifest["attend_masks"]["unpacked_shapes"]
    return [
        np.unpackbits(arrays[f"attend_layer{n}_packed"], axis=-1)[:, : shape[1]].astype(bool)
        for n, shape in enumerate(shapes)
    ]


def by_level(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Masks per layer to the decoder's form: per level `[rounds, 1, q, s_i]`."""
    return [np.stack(masks[i::LEVELS])[:, None] for i in range(LEVELS)]


def own_masks(intermediates: dict) -> list[np.ndarray]:
    """What the decoder sowed, per layer `[q, s_n]`."""
    sown = intermediates["intermediates"]["decoder"]["rounds"]
    rounds = sown["attend_0"][0].shape[0]
    return [np.asarray(sown[f"attend_{n % LEVELS}"][0][n // LEVELS, 0]) for n in range(rounds * LEVELS)]


def mask_logits(outputs, groups: tuple[str, ...]) -> np.ndarray:
    """The groups' masks in their order along q, `[d, b, q, t, h4, w4]`."""
    embeds = np.concatenate([outputs.mask_embeds[name] for name in groups], axis=2)
    return np.einsum("dbqc,bthwc->dbqthw", embeds, np.asarray(outputs.mask_features), optimize=True)


def sliced(array: np.ndarray, entry: dict) -> np.ndarray:
    """The part of an array that the fixture stores."""
    strides = re.search(r"strides \[(\d+), (\d+)\]", entry["slicing"])
    if strides is None:
        assert entry["slicing"] == "all", entry["slicing"]
        return np.asarray(array)
    y, x = map(int, strides.groups())
    return np.asarray(array)[..., y // 2 :: y, x // 2 :: x]


def compare(found: dict[str, np.ndarray], manifest: dict, arrays: dict[str, np.ndarray], tolerance: str) -> None:
    """Every stored array that has a tolerance, within it; entries stored as -1000 exactly."""
    expected = {name: entry for name, entry in manifest["arrays"].items() if "tolerance" in entry}
    assert set(found) == set(expected)
    for name, entry in expected.items():
        ours, theirs = sliced(found[name], entry), arrays[name]
        assert ours.shape == theirs.shape, name
        unset = theirs == -1000
        np.testing.assert_array_equal(ours[unset], -1000)
        limit = entry.get(tolerance) or entry["tolerance"]  # query encoders know no attention masks
        golden_files.assert_within(ours[~unset], theirs[~unset], limit, f"{name} {tolerance}")
