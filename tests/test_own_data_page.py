"""The commands of docs/own_data.md, on ten drawn frames in every form of labels. Training is in tests/acceptance."""

import pathlib
import re
import shlex

import numpy as np
import own_scenes
import pytest
from typer.testing import CliRunner

from vps_jax.cli import app
from vps_jax.config import experiment
from vps_jax.datasets import class_file, dataset
from vps_jax.media.result_folders import make_writer
from vps_jax.runs import config_files, own_experiment
from vps_jax.runs import experiment as runs
from vps_jax.runs.own_preview import frame_of

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "own_data.md"
FORMS = {
    "index": own_scenes.as_index, "palette": own_scenes.as_palette, "panoptic-video": own_scenes.as_panoptic_video,
    "ytvis": own_scenes.as_ytvis, "coco": own_scenes.as_coco,
}  # fmt: skip
KINDS = {"ytvis": "instance", "coco": "instance"}
OF_SCENES = {40: 0, 21: 8, 7: 9, 3: 11, 20: 11, own_scenes.VOID: 11}  # our classes -> those of the page's class file


def lines(start: str) -> list[str]:
    """The page's commands that begin so."""
    return [line for line in PAGE.read_text().splitlines() if line.startswith(start)]


def run(line: str, *more: str) -> str:
    """Output of a `vps-jax` command of the page."""
    found = CliRunner().invoke(app, [*shlex.split(line)[1:], *more])
    assert found.exit_code == 0, (line, found.output, found.exception)
    return found.output


def ten_frames() -> list[own_scenes.Drawn]:
    """Three videos of the page's classes, with a car in each split."""
    table = np.zeros(256, np.uint8)
    table[list(OF_SCENES)] = list(OF_SCENES.values())
    scenes = [
        *own_scenes.drawn({"train": 2}, size=(48, 64), frames=3),
        *own_scenes.drawn({"val": 1}, size=(48, 64), frames=4),
    ]
    return [one._replace(values=table[one.values], objects=one.objects * (one.values == 21)) for one in scenes]


def draw(form: str) -> None:
    """The page's folder `CamVid` and its class file, in the working directory."""
    text = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)[1]
    pathlib.Path("classes.yaml").write_text(text)
    drawn = ten_frames()
    assert len(drawn) == 10
    own_scenes.write_frames(pathlib.Path("CamVid"), drawn)
    FORMS[form](pathlib.Path("CamVid"), drawn, class_file.read("classes.yaml"))


def prepare(form: str) -> pathlib.Path:
    """Check and prepare as the page says, into the folder that the page trains from."""
    check, ready = lines("vps-jax data check own"), lines("vps-jax data prepare own")
    assert len(check) == len(ready) == 1
    assert "10 frames, 0 problems" in run(check[0], "--format", form)
    folder = "data/fish" if form in KINDS else "data/camvid"
    text = run(ready[0].replace("data/camvid", folder), "--format", form, "--workers", "1")
    assert f"names on labels -> {folder}/preview.jpg" in text
    table = PAGE.read_text().partition("`data prepare` writes these files")[2].partition("\n\nLook")[0]
    for name in re.findall(r"^\| `([^`]+)` \|", table, re.M):
        if name != "frames/" and ("{split}" not in name or form in KINDS):  # there are no video files
            assert (pathlib.Path(folder) / name.format(split="val")).exists(), name
    return pathlib.Path(folder)


def trained(form: str):
    """The experiment of the page's training command for a form, filled in and checked."""
    line = next(line for line in lines("python main.py") if f"own.py:{KINDS.get(form, 'semantic')}" in line)
    words = shlex.split(line)
    config = config_files.load(str(PAGE.parents[1] / words[words.index("--config") + 1]))
    for key, value in (word.removeprefix("--config.").split("=") for word in words if word.startswith("--config.")):
        config[key.split(".")[0]][key.split(".")[1]] = value
    found = own_experiment.filled(experiment(config))
    runs.check(found)
    runs.check_truth(found.evaluate)
    return found


def write_truth_as_results(root: pathlib.Path, out: pathlib.Path, classes) -> None:
    """What a perfect model would predict."""
    spec = dataset(str(root))
    writer = make_writer(out, str(root), classes)
    for video in spec.predicted(root, "val"):
        scanned = spec.scan(video)
        with writer.video(video.name, number=video.number) as result:
            numbers: dict[int, int] = {}
            for i, image in enumerate(video.images):
                result.write(frame_of(image.stem, spec.read_label(scanned, i).values, spec.labels, numbers))


@pytest.mark.parametrize("form", FORMS)
def test_data_config_and_scores_in_every_form(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(form)
    folder = prepare(form)
    config = trained(form)
    assert config.own.data == str(folder)
    write_truth_as_results(folder / "truth", tmp_path / "out", class_file.read("classes.yaml").classes)
    (line,) = [line for line in lines("vps-jax evaluate") if f"{folder}/truth" in line]
    text = run(line)
    assert ("ap" if form in KINDS else "mIoU").lower() in text.lower() and "100.0" in text


def test_the_draft_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw("index")
    pathlib.Path("classes.yaml").unlink()
    (line,) = lines("vps-jax data classes")
    assert "4 values -> classes.yaml" in run(line)
    assert class_file.read("classes.yaml").classes.official_ids == (0, 8, 9, 11)
    assert {path.name for path in pathlib.Path("classes_pictures").iterdir()} == {"0.png", "8.png", "9.png", "11.png"}


@pytest.mark.acceptance
@pytest.mark.parametrize("form", ["index", "ytvis"])
def test_train_predict_and_evaluate(form, tmp_path, monkeypatch):
    """Three steps of a smaller model; the commands behind training are the page's."""
    monkeypatch.chdir(tmp_path)
    draw(form)
    folder = prepare(form)
    changes = {"hidden_dim": 32, "num_heads": 4, "neck_layers": 1, "decoder_layers": 3, "instance_queries": 8}
    load = config_files.load

    def small(reference):
        config = load(reference)
        config["model"] |= changes
        config["train"] |= {"steps": 3, "evaluate_every": 3, "checkpoint_every": 3}
        config["train"]["batch_size"] = config["data"]["batch_size"] = 8  # one for each of the suite's devices
        return config

    monkeypatch.setattr(config_files, "load", small)
    name = folder.name
    rows = runs.run(trained(form), f"runs/{name}")
    assert {row["weights"] for row in rows} == {"raw", "ema"}
    (predict,) = [line for line in lines("vps-jax predict") if f"{folder}/truth" in line]
    (evaluate,) = [line for line in lines("vps-jax evaluate") if f"{folder}/truth" in line]
    run(predict)
    assert "1 video" in run(evaluate)
