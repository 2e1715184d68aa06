"""Every citation of the reference pages resolves; docs/reference/README.md says how citations are written."""

import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"

NUMBER = r"\d+(?:\.\d+)*(?:(?:-|\s+to\s+)\d+(?:\.\d+)*)?"  # 8.3, 4.1-4.3, 1 to 4
NUMBERS = rf"{NUMBER}(?:(?:,\s*|\s+and\s+){NUMBER})*"
GROUP = rf"(?:[a-z_]+\s+)?{NUMBERS}"
GROUPS = rf"{GROUP}(?:[,;]\s*{GROUP})*"
SPEC = re.compile(rf"\bspec:?\s+({GROUPS})", re.I)  # (spec: tarvis 8.3), [spec 6.6], Spec: tarvis 7.2
TITLED = re.compile(r"\bspec:?\s+([a-z_]+),\s+([a-z][a-z ]*[a-z])", re.I)  # (spec: tarvis, framework traps)
LINK = re.compile(r"\[([^\]]+)\]\((?:[\w./]*/)?(\w+)\.md\)")  # [TarViS 3.2](tarvis.md)
OWN_PAGE = re.compile(r"reference/([a-z]\w*)\.md")


def read_pages() -> dict[str, set[str]]:
    """Sections by page: numbers of headings and of table rows, titles of headings without a number."""
    return {path.stem: sections(path.read_text()) for path in REFERENCE.glob("*.md") if path.stem != "README"}


def sections(text: str) -> set[str]:
    headings = re.findall(r"^##+ (?:(\d+(?:\.\d+)*)\.? )?(.+)$", text, re.M)
    rows = re.findall(r"^\| (\d+(?:\.\d+)+) \|", text, re.M)
    return {number or title.lower() for number, title in headings} | set(rows)


def prose(path: pathlib.Path) -> str:
    """Comments and strings of a Python file; another file as it is."""
    if path.suffix != ".py":
        return path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return "\n".join(
        t.string.lstrip("# ") if t.type == tokenize.COMMENT else t.string
        for t in tokens
        if t.type in (tokenize.COMMENT, tokenize.STRING)
    )


def patterns(pages) -> tuple[re.Pattern, ...]:
    """The forms of a citation with numbers: behind the word spec, and a page's name alone in brackets."""
    bare = re.compile(rf"(?<=[(\[])((?:{'|'.join(pages)})\s+{GROUPS})")  # (tarvis 4.4)
    return SPEC, bare


def citations(text: str, pages) -> list[tuple[str, str]]:
    """(page, section) of every citation in a text; the page is '' where the text does not say it."""
    found = [(m[1].lower(), m[2].lower()) for m in TITLED.finditer(text)]
    own = {page for page in OWN_PAGE.findall(text) if page in pages}
    for match in [m for pattern in patterns(pages) for m in pattern.finditer(text)]:
        page = min(own) if len(own) == 1 else ""
        for name, numbers in re.findall(rf"([a-z_]+\s+)?({NUMBER})", match[1], re.I):
            page = page if name.strip() in ("", "and") else name.strip().lower()
            found += [(page, end) for end in re.split(r"-|\s+to\s+", numbers)]
    for words, page in LINK.findall(text):
        if page in pages:
            found += [(page, number) for number in re.findall(r"\d+(?:\.\d+)*", words)]
    return found


def unresolved(text: str, pages) -> list[str]:
    """What is wrong with the citations of a text, one phrase each."""
    wrong = [f"looks like a citation: {words}" for words in overlooked(text, pages)]
    for page, section in citations(text, pages):
        if not page:
            wrong.append(f"{section}: the file names no page, docs/reference/PAGE.md")
        elif page not in pages:
            wrong.append(f"{page} {section}: no such page; there are {', '.join(sorted(pages))}")
        elif section not in pages[page]:
            wrong.append(f"{page} {section}: no such section")
    return wrong


def overlooked(text: str, pages) -> list[str]:
    """Words that look like a citation and are none that `citations` sees."""
    seen = "\0"
    for pattern in (LINK, TITLED, *patterns(pages)):
        text = pattern.sub(seen, text)
    names = "|".join(pages)
    looks = re.compile(
        rf"[(\[]spec[:\s][^)\]\n]*|\bspec:?\s+(?:\d|(?:{names})\b).*"  # [spec of the paper], spec: tarvis
        rf"|(?<=[^\s{{`])[ ]?\bspec:\s.*"  # not an argument's line, a format or code
        rf"|\b(?:{names})\s\d+\.\d.*"  # as in tarvis 6.2
        rf"|[(\[][^)\]\n]*{seen}[^)\]\n]*\b\d+\.\d+\b",  # [spec 6.2; weights, 9.5]
        re.I,
    )
    return [m[0].replace(seen, "...").strip()[:80] for m in looks.finditer(text)]


FILES = sorted(
    path
    for pattern in ("*.md", "*.py", "docs/**/*.md", *(f"{room}/**/*.{end}" for room in
        ("vps_jax", "tfds_builders", "configs", "tests", "benchmarks") for end in ("py", "md")))
    for path in ROOT.glob(pattern)
    if path != pathlib.Path(__file__).resolve()
)  # fmt: skip


def test_every_citation_resolves():
    pages = read_pages()
    texts = {path: prose(path) for path in FILES}
    assert {page for text in texts.values() for page, _ in citations(text, pages)} >= {"tarvis", "vit_adapter"}
    wrong = [f"{path.relative_to(ROOT)}: {w}" for path, text in texts.items() for w in unresolved(text, pages)]
    assert not wrong, "\n".join(wrong)


def test_every_page_has_sources_and_is_listed():
    index = (REFERENCE / "README.md").read_text()
    for page in read_pages():
        assert "\n**Sources.** " in (REFERENCE / f"{page}.md").read_text(), page
        assert f"| [{page}]({page}.md) |" in index, page


PAGES = {"tarvis": {"1", "4.1", "4.3", "6.2", "9.5", "framework traps"}, "metrics": {"5.1"}, "vit_adapter": {"8"}}


@pytest.mark.parametrize(
    "text",
    [
        "(spec: tarvis 6.2)",
        "(spec: tarvis 6.2, 9.5; vit_adapter 8)",
        "(spec: metrics 5.1, tarvis 6.2) of VIPSeg",
        "(spec:\n    tarvis 6.2).",
        "Source: spec vit_adapter 8.",
        "Spec: tarvis 1: six of them",
        "(spec: tarvis 4.1-4.3)",
        "(spec: tarvis 1 and 6.2)",
        "(spec: tarvis, framework traps)",
        "alike for all clips (tarvis 6.2)",
        "of docs/reference/tarvis.md [ours, spec 6.2]",
        "of docs/reference/tarvis.md [spec vit_adapter 8] and [spec 1]",
        "[TarViS 6.2](reference/tarvis.md), [metrics, 5.1](metrics.md)",
        "a data set's spec; `spec: DatasetSpec`\n    spec: the data set.\n",
    ],
)
def test_good_citations_resolve(text):
    assert unresolved(text, PAGES) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(spec: tarvis 6.3)", "tarvis 6.3: no such section"),
        ("(spec: tarvis 6.2, 9.55)", "tarvis 9.55: no such section"),
        ("(spec: tarvis 4.1-4.4)", "tarvis 4.4: no such section"),
        ("(spec: tarvis 1 to 5)", "tarvis 5: no such section"),
        ("(spec: tarvis 6.2; vit_adapter 9)", "vit_adapter 9: no such section"),
        ("(spec: swin 3)", "swin 3: no such page"),
        ("(spec: metrics 5.9)", "metrics 5.9: no such section"),
        ("(spec: tarvis, framework tricks)", "tarvis framework tricks: no such section"),
        ("(tarvis 4.4)", "tarvis 4.4: no such section"),
        ("[spec 6.2]", "6.2: the file names no page"),
        ("docs/reference/tarvis.md [ours, spec 7]", "tarvis 7: no such section"),
        ("[TarViS 7](reference/tarvis.md)", "tarvis 7: no such section"),
        ("(spec: the official json)", "(spec: the official json"),
        ("as in tarvis 6.2", "tarvis 6.2"),
        ("docs/reference/tarvis.md [spec 6.2; weights, 9.5]", "weights, 9.5"),
    ],
)
def test_wrong_citations_are_named(text, says):
    assert any(says in wrong for wrong in unresolved(text, PAGES))


def test_sections_are_headings_and_numbered_rows():
    page = "# Page\n## 3. Neck\n### 3.2 Codes\n## Framework traps\n| 9.5 | labels |\n| 7 | 3 |\n"
    assert sections(page) == {"3", "3.2", "framework traps", "9.5"}
