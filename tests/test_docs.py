"""What the documents point at is there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# pages of docs/reference name files of other repositories, so that only their links are looked at
OURS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tfds_builders/*/README.md")])
PAGES = sorted([*OURS, *ROOT.glob("docs/reference/*.md")])

NAMED = re.compile(r"`(?:python )?((?:tests|benchmarks|configs|vps_jax|tfds_builders)/[\w/]+(?:\.\w+)?)(?:::(\w+))?")
TESTED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def missing(text: str) -> list[str]:
    """Files and tests that a text names in code marks and that are not there."""
    wrong = []
    for path, test in NAMED.findall(text):
        file = ROOT / path
        if not (file.exists() or file.with_suffix(".py").exists()):
            wrong.append(path)
        elif test and (file.is_dir() or f"def {test}(" not in file.read_text()):
            wrong.append(f"{path}::{test}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    assert not [f for f in re.findall(r"\]\(([^)#:]+)\)", page.read_text()) if not (page.parent / f).exists()]


@pytest.mark.parametrize("page", OURS, ids=name)
def test_named_files_and_tests_exist(page):
    assert not missing(page.read_text())


def test_what_is_missing_is_named():
    text = "`tests/test_docs.py::test_docs`, `tests/tasks::test_vos`, `configs/stage9.py`, `configs/stage1.py`"
    assert missing(text) == ["tests/test_docs.py::test_docs", "tests/tasks::test_vos", "configs/stage9.py"]


def test_every_deviation_names_its_test():
    rows = [line for line in (ROOT / "docs" / "deviations.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert rows
    assert not [row for row in rows if not TESTED.search(row.split("|")[-2])]
