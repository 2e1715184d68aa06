"""Versions stand in several files: the two requirements files, pyproject.toml, the workflow and pre-commit agree."""

import importlib.metadata
import pathlib
import re
import tomllib

from test_architecture import blocked_import, modules_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(file: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    return [line for line in lines if line]


def package(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0].lower().replace("-", "_")


def test_requirements_differ_only_in_how_jax_is_installed():
    assert [line.replace("jax[cuda12]", "jax") for line in pins("requirements.txt")] == pins("requirements-cpu.txt")


def test_every_range_has_an_exact_pin():
    lines = pins("requirements-cpu.txt")
    assert all(re.fullmatch(r"[\w-]+==[\w.]+(; python_version .*)?", line) for line in lines)
    extras = PROJECT["optional-dependencies"]
    ranges = [*PROJECT["dependencies"], *extras["train"], *extras["dev"], *extras["weights"], *extras["app"]]
    wanted = {package(line) for line in ranges} - {"vps_jax"}
    assert wanted <= {package(line) for line in lines}


def brought_along(requirements) -> set[str]:
    """Packages that are installed with these, they themselves included, by the metadata of what is installed here."""
    found, left = set(), [package(line) for line in requirements]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            try:
                needs = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            left += [package(line) for line in needs if "extra ==" not in line]
    return found


def test_the_core_predicts_converts_and_evaluates():
    core = brought_along(PROJECT["dependencies"]) | {"vps_jax"}
    assert not {"grain", "tensorboard", "pytest"} & core
    imported = importlib.metadata.packages_distributions().items()
    blocked = {module for module, owners in imported if not {package(owner) for owner in owners} & core}
    rooms = ("cli", "infer", "ensemble", "evaluation", "convert", "media", "viz", "models", "runs", "datasets")
    done = blocked_import([*modules_of(*rooms), "vps_jax.train.checkpoint"], blocked)
    assert done.returncode == 0, done.stderr


def test_slow_versions_of_jax_are_left_out():
    from vps_jax.train.setup import SLOW_SCATTER

    ranges = [line for line in PROJECT["dependencies"] if package(line) == "jax"]
    ranges += PROJECT["optional-dependencies"]["cuda12"]
    assert all(f"!={version}" in line for line in ranges for version in SLOW_SCATTER)


def test_the_workflow_runs_on_every_python_that_is_named():
    named = [
        c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    ]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    matrices = re.findall(r"^ +python: \[(.*)\]$", workflow, re.M)
    assert len(matrices) == 2
    assert all(re.findall(r'"([\d.]+)"', versions) == named for versions in matrices)


def test_pre_commit_has_the_pinned_ruff():
    (pin,) = (line for line in pins("requirements-cpu.txt") if package(line) == "ruff")
    rev = re.search(r"rev: v(\S+)", (ROOT / ".pre-commit-config.yaml").read_text())[1]
    assert pin == f"ruff=={rev}"
