"""Imports run downward only (docs/architecture.md), and the light packages stay light."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
L3 = {"tasks", "convert", "viz", "media"}
BASE = {"shapes", "agreement", "types", "config", "parsing", "files", "datasets"}
# package -> packages of ours that it may import beside itself
ALLOWED = {
    "types": set(),
    "shapes": set(),
    "parsing": {"types"},
    "upgrade": {"types"},
    "model_configs": {"types", "parsing"},
    "config": {"types", "parsing", "upgrade", "model_configs"},
    "agreement": {"types", "config"},
    "datasets": {"types", "files"},
    "files": {"types"},
    "command_line": {"types"},
    "ops": BASE,
    "models": BASE | {"ops"},
    "losses": BASE | {"ops"},
    "data": BASE | {"tfds_builders"},
    "evaluation": BASE,
    "tasks": BASE | {"ops", "losses"},
    "convert": BASE | {"ops", "models"},
    "viz": BASE | {"evaluation"},
    "media": BASE,
    "weights": {"types", "files"},
    "train": BASE | {"ops", "models", "losses", "data", "evaluation"} | L3,
    "infer": BASE | {"ops", "models", "losses", "data", "evaluation"} | L3,
    "ensemble": BASE | {"ops", "models", "losses", "data", "evaluation", "infer"} | L3,
    "runs": BASE | {"ops", "models", "losses", "data", "evaluation", "train", "infer", "ensemble", "weights"} | L3,
    "tfds_builders": {"datasets", "files", "types"},
    "configs": {"configs", "config", "datasets"},
    "main": {"types", "command_line", "config", "runs"},
    "app": BASE | {"infer", "media", "runs", "viz"},
    "cli": BASE
    | {
        "command_line",
        "app_commands",
        "data_commands",
        "weights_commands",
        "report_commands",
        "evaluation",
        "ensemble",
        "media",
        "runs",
    },
    "app_commands": {"types", "app", "runs"},
    "data_commands": BASE | {"data", "runs"},
    "weights_commands": {"runs"},
    "report_commands": {"evaluation", "runs"},
    "__main__": {"cli"},
    "pytest_golden": set(),  # pytest takes the DIR of `--golden DIR` for a root, and knows no conftest by then
    "__init__": {"types", "datasets", "runs"},  # of the package
}
# what a bare GPU machine with jax, flax and optax may lack
BARE = {
    "grain", "tensorflow_datasets", "array_record", "clu", "ml_collections", "tensorflow", "cv2", "av", "typer",
    "jaxtyping", "beartype",
}  # fmt: skip

BARE_TRAIN = (".step", ".optimizer", ".state", ".sharding")


def package_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "vps_jax" else parts[0]


def imported_modules(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources():
    files = [ROOT / "main.py"]
    for folder in ("vps_jax", "tfds_builders", "configs"):
        files += sorted((ROOT / folder).rglob("*.py"))
    return [f for f in files if f.exists()]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward(path):
    package = package_of(path)
    assert package in ALLOWED, f"{path}: a package that docs/architecture.md does not know"
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] not in {"vps_jax", "tfds_builders", "configs"}:
            continue
        if parts == ["vps_jax"]:
            continue
        other = parts[1] if parts[0] == "vps_jax" else parts[0]
        assert other == package or other in ALLOWED[package], f"{path}: {package} may not import {name}"


def blocked_import(modules: list[str], blocked: set[str]) -> subprocess.CompletedProcess:
    code = f"""
import importlib, importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
for name in {modules!r}:
    importlib.import_module(name)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def modules_of(*packages: str) -> list[str]:
    names = []
    for path in sources():
        if package_of(path) in packages:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            names.append(name.removesuffix(".__init__"))
    return names


def test_models_and_losses_need_only_jax_flax_optax():
    names = modules_of("ops", "models", "losses", "tasks")
    names += [n for n in modules_of("train") if n.endswith(BARE_TRAIN)]
    done = blocked_import(names, BARE)
    assert done.returncode == 0, done.stderr


def test_only_the_command_line_reads_flags():
    heavy = {"absl", "typer"}
    users = {
        str(path.relative_to(ROOT))
        for path in sources()
        if heavy & {name.split(".")[0] for name in imported_modules(path)}
    }
    # the stream of batches only says that grain's own flags keep their defaults
    names = ("cli", "app_commands", "data_commands", "weights_commands", "report_commands")
    commands = {f"vps_jax/{name}.py" for name in names}
    assert users <= {"main.py", *commands, "vps_jax/data/pipeline.py"}


def test_evaluation_and_data_run_without_jax():
    done = blocked_import(modules_of("evaluation", "data", "datasets", "types"), {"jax", "flax", "tensorflow"})
    assert done.returncode == 0, done.stderr
    done = blocked_import(modules_of("tfds_builders"), {"jax", "flax", "tensorflow"})
    assert done.returncode == 0, done.stderr


def test_tensorflow_is_never_imported():
    names = [n for n in modules_of(*ALLOWED, "cli") if not n.startswith("configs")]
    done = blocked_import(names, {"tensorflow"})
    assert done.returncode == 0, done.stderr


def test_no_file_is_longer_than_a_head_can_hold():
    long = {str(f.relative_to(ROOT)): n for f in sources() if (n := f.read_text().count("\n")) > 450}
    assert not long


def test_test_files_have_names_of_their_own():
    """Test folders are no packages: pytest takes two files of one name for the same module."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
