"""Backbone stages and neck levels against the published system, image to map, through the converter."""

import functools

import golden_files
import jax
import numpy as np
import pytest
import tarvis_golden

pytestmark = pytest.mark.parity
CASES = ("tarvis_a_vipseg_backbone", "tarvis_a_vipseg_neck", "tarvis_b_vipseg_features")


@functools.lru_cache(maxsize=2)
def backbone_maps(folder, seed: int, clip: str, size: tuple[int, int]):
    """`res2..res5` as the reference lays them out, `[b t, c, h, w]`."""
    manifest = {"input": clip, "padded_height_width": size}
    images = tarvis_golden.pad(tarvis_golden.clip_of(folder, manifest), manifest, value=128)[None]
    run = jax.jit(functools.partial(tarvis_golden.network().apply, method="backbone_features"))
    maps = run(tarvis_golden.variables(folder, seed), images)
    return {f"res{i + 2}": np.moveaxis(np.asarray(m[0]), -1, 1) for i, m in enumerate(maps)}


def neck_maps(folder, manifest: dict):
    """`neck_32x..neck_4x` as the reference lays them out, `[b, t, c, h, w]`."""
    levels, mask_features = tarvis_golden.maps_of(folder, manifest)
    names = ("neck_32x", "neck_16x", "neck_8x", "neck_4x")
    return {n: np.moveaxis(np.asarray(m), -1, 2) for n, m in zip(names, (*levels, mask_features), strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_maps(case, golden_dir, golden_is_whole):
    manifest, arrays = golden_files.load(golden_dir, case, whole=golden_is_whole)
    found = {}
    if "res2" in arrays:
        size = tuple(manifest["padded_height_width"])
        found |= backbone_maps(golden_dir, manifest["seed"], manifest["input"], size)
    if "neck_32x" in arrays:
        found |= neck_maps(golden_dir, manifest)
    assert found
    for name, entry in manifest["arrays"].items():
        assert list(found[name].shape) == entry["full_shape"]
    tarvis_golden.compare(found, manifest, arrays, "tolerance")
