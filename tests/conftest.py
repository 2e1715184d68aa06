"""Eight virtual CPU devices, quick compilation, a persistent cache, a browser, and the folder of `--golden`
(vps_jax/pytest_golden.py)."""

import gc
import os
import pathlib
import shutil
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# pyproject.toml says so too, but `--golden DIR` alone hides that file from pytest
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "golden")]
# a shell lets what it starts in the background ignore SIGINT, and children inherit that; tests send it to theirs
signal.signal(signal.SIGINT, signal.default_int_handler)
# tracing makes millions of objects that live on: to look at them after every 700 new ones takes a third of its time
gc.set_threshold(1_000_000)
# eight devices and full float32 are the CPU's, on a machine with a GPU too; `make test-gpu` asks for the GPU
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers keep all cores busy; more threads of XLA get in their way
    os.environ.setdefault("NPROC", "1")
if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()

import pytest  # noqa: E402
import quick_compile  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# shapes and types of public functions are checked at every call, in the tests only
TYPED = [f"vps_jax.{package}" for package in ("ops", "losses", "models", "tasks")]
# of inference the modules that work on arrays alone; the others are tested with stand-ins for models and videos
TYPED += [f"vps_jax.infer.{module}" for module in ("fusion", "stitching", "upsampling", "video_segments")]
install_import_hook(TYPED, "beartype.beartype")


def pytest_configure(config):
    """Let XLA compile quickly; the acceptance tests run long enough for optimised programs to pay."""
    if "not acceptance" not in config.option.markexpr:
        return  # these also measure the memory of commands as they are
    if quick_compile.FLAGS not in os.environ["XLA_FLAGS"]:
        os.environ["XLA_FLAGS"] += f" {quick_compile.FLAGS}"
    # for the workers, and for commands that tests start: they need not start themselves again
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The long tests first in the share of every worker, so that none is left alone with one at the end."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    early, rest = [], []
    for item in items:
        (early if item.get_closest_marker("early") else rest).append(item)
    ordered = []
    for worker in range(workers):
        share = len(items) * (worker + 1) // workers - len(ordered)  # xdist cuts the list into equal parts
        first = early[worker::workers]
        short = max(share - len(first), 0)
        ordered += first + rest[:short]
        del rest[:short]
    items[:] = ordered + rest


@pytest.fixture(scope="session")
def golden_dir(request) -> pathlib.Path:
    """The folder of golden files."""
    return pathlib.Path(request.config.getoption("--golden", default=None) or ROOT / "tests" / "golden")


@pytest.fixture(scope="session")
def golden_is_whole(request) -> bool:
    """True when `--golden` names a folder, in which case a missing case fails instead of being left out."""
    return request.config.getoption("--golden", default=None) is not None


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") or item.get_closest_marker("parity"):
        import jax

        if jax.default_backend() == "gpu":
            jax.config.update("jax_default_matmul_precision", "highest")  # TF32 has ten bits
        elif item.get_closest_marker("gpu"):
            pytest.skip("needs a GPU: JAX_PLATFORMS=cuda,cpu")


@pytest.fixture(scope="session")
def driver():
    """Headless Chromium, driven by the chromedriver beside it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no browser: install the packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1000"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1])) as browser:
        yield browser
