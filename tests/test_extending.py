"""The stories of docs/extending.md, played with the files that the page shows, in an empty folder."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
import quick_compile

import vps_jax
from vps_jax import config, datasets, models
from vps_jax.evaluation import metrics
from vps_jax.models import backbones
from vps_jax.runs import config_files, ensemble_experiment, experiment
from vps_jax.train.checkpoint import find_step, read_meta, restore_for_inference, save_converted

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = dict(re.findall(r"^```py\n# (\S+\.py)\n(.*?)^```$", (ROOT / "docs" / "extending.md").read_text(), re.M | re.S))
TABLES = (datasets.DATASETS, config.MODELS, backbones.BACKBONES, metrics.METRICS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the files of the page; rows that a story adds are gone afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = [dict(table) for table in TABLES]
    yield tmp_path
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def small(name: str):
    """The experiment of a file of the page at a size that compiles in seconds, for two steps."""
    given = config_files.load_module(name)[0].get_config()
    given.update(json.loads(json.dumps(SMALL)))
    return given


SMALL = {
    "model": {
        "neck_layers": 1, "decoder_layers": 3, "instance_queries": 5, "hidden_dim": 32, "neck_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    },
    "train": {"steps": 2, "checkpoint_every": 2, "evaluate_every": 0, "log_every": 1},
    "synthetic": {"folder": "data", "train": 2, "val": 1, "test": 0},
}  # fmt: skip
QUICK = {"XLA_FLAGS": quick_compile.xla_flags(devices=1)}


def options(tree: dict, prefix: str = "--config") -> list[str]:
    """`SMALL` on the command line of main.py."""
    rows = []
    for key, value in tree.items():
        rows += options(value, f"{prefix}.{key}") if isinstance(value, dict) else [f"{prefix}.{key}={value}"]
    return rows


def test_no_file_of_a_story_touches_the_package():
    own = {"toys.py", "patches.py", "mean_color.py", "things_share.py", "posterize.py"}
    assert own <= set(FILES)
    rows = re.findall(r"^[A-Z]+\[[\w.\"]+\] = ", "".join(FILES[name] for name in own), re.M)
    assert len(rows) == 4  # and the augmentation's row stands in its config


def run(*command: str) -> str:
    """Run Python with quick compilation; what it printed."""
    done = subprocess.run([sys.executable, *command], env={**os.environ, **QUICK}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def write_toys(root: pathlib.Path) -> None:
    """Videos of a ball that rolls over floor and wall."""
    root.mkdir()
    (root / "toys.txt").write_text("five classes\n")
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            for t in range(4):
                mask = np.full((64, 128), 16 * 1, np.uint8)  # floor
                mask[:20] = 16 * 2  # wall
                mask[30:50, 10 + 8 * t : 40 + 8 * t] = 16 * 3 + 1  # ball
                image = np.zeros((64, 128, 3), np.uint8) + 2 * mask[..., None]
                for kind, array in (("frames", image), ("masks", mask)):
                    write_image(root / split / name / kind / f"{t:03d}.png", array)


def write_image(path: pathlib.Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


@pytest.mark.early
def test_a_data_set(folder):
    from vps_jax.evaluation.runner import evaluate_folders

    write_toys(folder / "TOYS")
    run("prepare_toys.py")
    wanted = options({**SMALL, "train": {**SMALL["train"], "evaluate_every": 2}})
    wanted = [option for option in wanted if "synthetic" not in option]
    run(str(ROOT / "main.py"), "--config", "my_data.py", "--workdir", "run", *wanted)
    rows = json.loads(pathlib.Path("run/metrics.json").read_text())
    assert {"vpq", "vpq1", "vpq2", "miou"} <= set(rows[-1])
    toys = importlib.import_module("toys")
    assert [row["name"] for row in read_meta(find_step("run"))["classes"]] == list(toys.CLASSES.names)
    assert vps_jax.load("run").classes == toys.CLASSES
    perfect(toys, folder / "TOYS", folder / "perfect")
    result = evaluate_folders(folder / "TOYS", folder / "perfect", split="val", metrics="vpq,miou", windows=(1, 2))
    assert metrics.headline(result)["vpq"] == metrics.headline(result)["miou"] == 100


def perfect(toys, root: pathlib.Path, out: pathlib.Path) -> None:
    """The truth as a result folder."""
    from vps_jax.media.result_folders import make_writer
    from vps_jax.types import PanopticFrame

    writer = make_writer(out, "vipseg", toys.CLASSES)
    for video in toys.videos(root, "val"):
        with writer.video(video.name) as result:
            for i, image in enumerate(video.images):
                labels = toys.read_label(video, i).values.astype(int)
                tracks = np.where(labels % 256 > 0, labels, 0).astype(np.int32)
                result.write(PanopticFrame(image.stem, (labels // 256 - 1).astype(np.uint8), tracks))


@pytest.mark.early
def test_a_backbone(folder):
    run(str(ROOT / "main.py"), "--config", "my_backbone.py", "--workdir", "run", *options(SMALL))
    importlib.import_module("patches")
    saved, variables = restore_for_inference("run", "ema")
    assert saved.model.backbone == "patches"
    kernel = variables["params"]["backbone"]["stage_0"]["kernel"]
    assert kernel.shape == (4, 4, 3, 16)
    start = models.init(models.build(saved.model), jax.random.key(saved.train.seed), (64, 64))
    assert np.abs(kernel - start["params"]["backbone"]["stage_0"]["kernel"]).max() > 0  # the backbone was trained


def test_an_augmentation(folder):
    from vps_jax.data import pipeline

    given = config.experiment(small("my_augmentation.py"))
    experiment.make_synthetic(given.synthetic)
    levels = np.unique(next(pipeline.train_batches(given.data)).clip.images)
    assert set(levels) & {0, 64, 192} and len(levels) > 5  # four levels, and those that resizing mixes


def save_colors(where: str, frame: np.ndarray) -> None:
    """A checkpoint whose first class has the mean colour of a frame and whose others are far away."""
    importlib.import_module("mean_color")
    means = np.full((124, 3), -500.0, np.float32)
    means[7] = frame.reshape(-1, 3).mean(0)
    given = {"model": {"name": "mean_color"}, "infer": {}}
    save_converted(where, given, {"params": {"means": means}})


def test_a_model_alone(folder):
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 128, 3), np.uint8)
    save_colors("runs/colors", frames[0])
    found = list(vps_jax.load("runs/colors")(frames))
    assert [frame.stem for frame in found] == ["00000000", "00000001", "00000002"]
    assert all((frame.categories == 7).all() for frame in found)


def test_a_model_in_an_ensemble(folder):
    given = small("my_augmentation.py")  # a TarViS, and videos
    experiment.make_synthetic(config.experiment(given).synthetic)
    given.model.backbone = "swin_micro"
    start = models.init(models.build(given.model), jax.random.key(0), (64, 64))
    save_converted("runs/tarvis", given.to_dict(), start)
    save_colors("runs/colors", np.zeros((1, 1, 3), np.uint8))
    ensemble = config_files.load_module("my_ensemble.py")[0].get_config()
    alone, both = {}, {}
    for weight, out in ((0.0, alone), (1000.0, both)):
        ensemble.members.colors.weight = weight
        ensemble_experiment.predict(
            ["data/converted"], config.ensemble_experiment(ensemble), f"out{weight}", split="val", overlay=False,
            progress=False,
        )  # fmt: skip
        rows = json.loads(pathlib.Path(f"out{weight}/pred.json").read_text())["annotations"][0]["annotations"]
        out |= {row["file_name"]: {s["category_id"] for s in row["segments_info"]} for row in rows}
    assert all(7 in found for found in both.values())  # the member with the weight decides the stuff
    assert alone.keys() == both.keys() and alone != both


def test_a_metric(folder):
    from vps_jax.evaluation.runner import evaluate_folders

    importlib.import_module("things_share")
    experiment.make_synthetic(config.Synthetic(folder="data", train=1, val=1, test=0))
    truth = pathlib.Path("data/converted")
    results = pathlib.Path("results")
    results.mkdir()
    (results / "pan_pred").symlink_to(truth.resolve() / "panomasksRGB")
    (results / "pred.json").symlink_to(truth.resolve() / "panoptic_gt_VIPSeg_val.json")
    result = evaluate_folders(truth, results, split="val", metrics="vpq,things_share", windows=(1,))
    rows = json.loads((truth / "panoptic_gt_VIPSeg_val.json").read_text())
    thing = {row["id"]: row["isthing"] for row in rows["categories"]}
    segments = [s for v in rows["annotations"] for a in v["annotations"] for s in a["segments_info"]]
    area = sum(s["area"] for s in segments)
    expected = 100 * sum(s["area"] for s in segments if thing[s["category_id"]]) / area
    assert metrics.headline(result)["things_share"] == pytest.approx(expected)
