"""Read golden files (manifest and arrays) and compare within the manifest's tolerance. See tests/golden/README.md."""

import json
import pathlib

import numpy as np
import pytest


def load(folder: pathlib.Path, name: str, *, whole: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """Manifest and arrays of `name`; skips when the case is not in the shipped subset, fails when `whole`."""
    manifest, arrays = folder / f"{name}.json", folder / f"{name}.npz"
    if not manifest.exists() or not arrays.exists():
        message = f"{name} is not in {folder}"
        pytest.fail(message) if whole else pytest.skip(message)
    with np.load(arrays) as npz:
        return json.loads(manifest.read_text()), dict(npz)


def differences(actual: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """The four distances that tolerances speak of, in float64."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    gap = np.abs(actual - expected)
    return {
        "max_abs": float(gap.max(initial=0.0)),
        "rel_l2": float(np.linalg.norm(gap) / max(np.linalg.norm(expected), 1e-30)),
        "p999_abs": float(np.quantile(gap, 0.999)) if gap.size else 0.0,
        "median_abs": float(np.median(gap)) if gap.size else 0.0,
    }


def assert_within(actual, expected, tolerance: dict[str, float], what: str = "") -> None:
    """Every distance that the tolerance names is held."""
    assert tolerance, f"{what}: the manifest gives no tolerance"
    found = differences(actual, expected)
    over = {k: (found[k], limit) for k, limit in tolerance.items() if not found[k] <= limit}
    assert not over, f"{what}: (found, allowed) {over}"
