"""What the documents point at is there, their commands have the options they name, and their Python runs."""

import json
import pathlib
import re
import shlex
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# pages of docs/reference name files of other repositories, so that only their links are looked at
OURS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tfds_builders/*/README.md")])
PAGES = sorted([*OURS, *ROOT.glob("docs/reference/*.md")])

NAMED = re.compile(r"`(?:python )?((?:tests|benchmarks|configs|vps_jax|tfds_builders)/[\w/]+(?:\.\w+)?)(?:::(\w+))?")
TESTED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """The code blocks of a page, each with as many empty lines before it as the page has."""
    text = page.read_text()
    return ["\n" * text.count("\n", 0, m.start(2)) + m[2] for m in BLOCK.finditer(text) if m[1] == language]


def long_lines(text: str) -> list[str]:
    """Lines of over 120 columns outside of code blocks."""
    return [line for line in BLOCK.sub("", text).splitlines() if len(line) > 120]


def joined(text: str) -> str:
    """A text whose commands stand in one line each: a backslash at the end of a line goes on with the next."""
    return re.sub(r"\\\n\s*", "", text)


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
    assert not [f for f in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()) if not (page.parent / f).exists()]


@pytest.mark.parametrize("page", OURS, ids=name)
def test_lines_fit_into_120_columns(page):
    assert not long_lines(page.read_text())


def test_long_lines_are_found_outside_of_code():
    fits, long = "a" * 120, "| " + "b" * 119
    assert long_lines(f"{fits}\n{long}\n```\n{long}\n```\n{fits}\n") == [long]


def anchors(page: pathlib.Path) -> set[str]:
    """What a link may name behind `#`: the headings of a page, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", OURS, ids=name)
def test_links_name_headings(page):
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    assert not [(file, anchor) for file, anchor in links if anchor not in anchors(page.parent / file if file else page)]


@pytest.mark.parametrize("page", OURS, ids=name)
def test_named_files_and_tests_exist(page):
    assert not missing(page.read_text())


def test_what_is_missing_is_named():
    text = "`tests/test_docs.py::test_docs`, `tests/tasks::test_vos`, `configs/stage9.py`, `configs/stage1.py`"
    assert missing(text) == ["tests/test_docs.py::test_docs", "tests/tasks::test_vos", "configs/stage9.py"]


def test_every_deviation_names_its_test():
    entries = re.findall(r"^- \*\*.*?(?=^- |^#|^$|\Z)", (ROOT / "docs" / "deviations.md").read_text(), re.M | re.S)
    assert entries
    words = ("Published:", "Here:", "Reason:", "Test:")
    assert not [entry for entry in entries if not all(word in entry for word in words)]
    assert not [entry for entry in entries if not TESTED.search(entry.partition("Test:")[2])]


def test_newest_section_of_the_changelog_is_the_version():
    newest = re.search(r"^## \[(\S+)\] - (unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def unknown_options(line: str) -> list[str]:
    """Commands and options of `vps-jax ...` in a line of a shell block that the program does not have."""
    import typer

    from vps_jax.cli import app

    words = shlex.split(re.sub(r"[\[\]]", " ", line), comments=True)  # [optional] parts count too
    command, words = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return words[:1]
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("--") and word.split("=")[0] not in known]


@pytest.mark.parametrize("page", OURS, ids=name)
def test_commands_have_these_options(page):
    texts = [joined(block) for block in blocks(page, "")]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("vps-jax ")]
    lines = [line for line in lines if not re.match(r"vps-jax (COMMAND|--)", line)]
    assert not [(line, wrong) for line in lines if (wrong := unknown_options(line))]


def test_unknown_options_are_named():
    assert unknown_options("vps-jax evaluate --truth A --predictions B [--jsn C]") == ["--jsn"]
    assert unknown_options("vps-jax data prepair vipseg") == ["prepair"]
    assert unknown_options("vps-jax predict a.mp4 --no-overlay --output B  # --comment") == []


def wrong_experiments(text: str) -> list[str]:
    """Config files, their keys and benchmark modules that commands in a text name and that are not there."""
    from vps_jax.runs import config_files

    made = re.findall(r"--output (configs/\w+\.py)", text)  # by a command on the same page
    text = joined(text)
    modules = re.findall(r"python -m benchmarks\.(\w+)", text)
    wrong = [module for module in modules if not (ROOT / "benchmarks" / f"{module}.py").exists()]
    for line in re.findall(r"python main\.py.*", text):
        file = (re.search(r"--config (configs/\w+\.py)", line) or ["", "configs/tiny.py"])[1]
        if file in (*made, "configs/NAME.py"):
            continue
        if not (ROOT / file).exists():
            wrong.append(file)
            continue
        for key in re.findall(r"--config\.([\w.]+\w)", line):
            config = config_files.load(str(ROOT / file))
            for part in key.split("."):
                config = config.get(part) if isinstance(config, dict) else None
            wrong += [f"{file}: {key}"] if config is None else []
    return wrong


COMMANDING = [*OURS, *sorted(ROOT.glob("configs/*.py"))]


@pytest.mark.parametrize("page", COMMANDING, ids=name)
def test_experiments_have_these_files_and_keys(page):
    assert not wrong_experiments(page.read_text())


def test_wrong_experiments_are_named():
    text = "python main.py --config configs/stage9.py\npython main.py --config.train.batch_sise=3  # of tiny\n"
    text += (
        "`python -m benchmarks.loses`, python main.py --config configs/stage2.py:swin_tiny --config.init_from.path=a"
    )
    assert wrong_experiments(text) == ["loses", "configs/stage9.py", "configs/tiny.py: train.batch_sise"]


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A folder with what the documents name: a video, a truth and a result folder, the checkpoint of a small TarViS."""
    import jax
    import numpy as np

    from configs import tiny
    from vps_jax import models
    from vps_jax.data import synthetic, vipseg_convert
    from vps_jax.media.frame_folders import open_frame_folder
    from vps_jax.media.movie_writer import MovieWriter
    from vps_jax.train.checkpoint import save_converted

    folder = tmp_path_factory.mktemp("clone")
    raw, truth, results = folder / "VIPSEG", folder / "data" / "VIPSeg_720P", folder / "RESULTS"
    synthetic.synthesize(raw, train=1, val=1, test=0, sizes=((64, 128),), lengths=(6,), progress=False)
    vipseg_convert.convert(raw, truth, height=64, progress=False)
    results.mkdir()
    (results / "pan_pred").symlink_to(truth / "panomasksRGB")
    (results / "pred.json").symlink_to(truth / "panoptic_gt_VIPSeg_val.json")
    video = json.loads((results / "pred.json").read_text())["annotations"][0]["video_id"]
    with MovieWriter(folder / "clip.mp4", fps=5) as writer:
        for frame in open_frame_folder(truth / "images" / video).frames():
            writer.write(frame.image)
    config = tiny.get_config()
    config.model.neck_layers, config.model.decoder_layers, config.model.instance_queries = 1, 3, 5
    shapes = models.shapes(models.build(config.model))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.05, leaf.shape).astype(leaf.dtype), shapes)
    save_converted(folder / "runs" / "stage4", json.loads(config.to_json_best_effort()), variables)
    return folder


PYTHON = [(page, code) for page in OURS for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{name(p)}:{c.count(chr(10), 0, -1)}" for p, c in PYTHON])
def test_python_runs(page, code, clone, monkeypatch):
    monkeypatch.chdir(clone)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})


NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def cells_of(notebook: pathlib.Path, kind: str) -> list[tuple[str, dict]]:
    """Text and the rest of each cell of a kind."""
    cells = json.loads(notebook.read_text())["cells"]
    return [("".join(cell["source"]), cell) for cell in cells if cell["cell_type"] == kind]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebooks_run(notebook, clone, monkeypatch, capsys):
    """From top to bottom, with the checkpoint and the size of the video that the tests have."""
    (clone / "notebooks").mkdir()
    monkeypatch.chdir(clone / "notebooks")
    names = {"__name__": "__main__"}
    for text, cell in cells_of(notebook, "code"):
        exec(compile(text, notebook, "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names |= {"CHECKPOINT": clone / "runs" / "stage4", "SIZE": (64, 128), "LENGTH": 6}
    assert len(names["frames"]) == 6 and "vpq" in names["result"]
    assert "6 frames of (64, 128) with" in (said := capsys.readouterr().out) and "track,class" in said
    assert (clone / "runs" / "quickstart" / "results" / "report.html").is_file()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebooks_are_stored_without_outputs_and_their_links_lead_somewhere(notebook):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for _, cell in cells_of(notebook, "code"))
    text = "\n".join(text for text, _ in cells_of(notebook, "markdown"))
    assert not [file for file in re.findall(r"\]\(([^)#:]+)[)#]", text) if not (notebook.parent / file).exists()]
    assert not missing(text)
