"""What the documents point at is there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("tfds_builders/*/README.md")])

NAMED = re.compile(r"`(?:python )?((?:tests|benchmarks|configs|vps_jax|tfds_builders)/[\w/]+(?:\.py)?)(?:::(\w+))?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_tests_and_links_exist(page):
    text = page.read_text()
    wrong = [f for f in re.findall(r"\]\(([^)#:]+)\)", text) if not (page.parent / f).exists()]
    for path, test in NAMED.findall(text):
        file = ROOT / path
        if not (file.exists() or file.with_suffix(".py").exists()):
            wrong.append(path)
        elif test and f"def {test}(" not in file.read_text():
            wrong.append(f"{path}::{test}")
    assert not wrong


def test_every_deviation_names_its_test():
    rows = [line for line in (ROOT / "docs" / "deviations.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert rows and all("`tests/" in row.split("|")[-2] for row in rows if not row.startswith("|---"))
