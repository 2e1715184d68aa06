"""Eight virtual CPU devices, a persistent compilation cache and the `--golden` option for all tests."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()

import pytest  # noqa: E402


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        metavar="DIR",
        default=None,
        help="folder of golden numbers to compare with, whole (default: the subset in tests/golden)",
    )


@pytest.fixture(scope="session")
def golden_dir(request) -> pathlib.Path:
    """The folder of golden files."""
    return pathlib.Path(request.config.getoption("--golden") or ROOT / "tests" / "golden")


@pytest.fixture(scope="session")
def golden_is_whole(request) -> bool:
    """True when `--golden` names a folder, in which case a missing case fails instead of being left out."""
    return request.config.getoption("--golden") is not None


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import jax

        if jax.default_backend() != "gpu":
            pytest.skip("needs a GPU")
