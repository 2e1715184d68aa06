"""Every metric equals the official scripts on all `metrics_*` sets, to 1e-9, also where a script has no value."""

import json
import pathlib

import cv2
import numpy as np
import pytest

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import counts as counting
from vps_jax.evaluation import metrics, miou, scoring, vc
from vps_jax.evaluation.protocol import PANOPTIC, Settings
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.evaluation.vpq import window_lengths

pytestmark = pytest.mark.parity
TOLERANCE = 1e-9  # of numbers in 0..1
DEEPLAB2_TOLERANCE = 1e-6  # that class counts in float32


def found_sets(folder: pathlib.Path) -> list[str]:
    return sorted(path.name.removesuffix("_labels.npz") for path in folder.glob("metrics_*_labels.npz"))


def pytest_generate_tests(metafunc):
    folder = metafunc.config.getoption("--golden")
    folder = pathlib.Path(folder) if folder else pathlib.Path(__file__).resolve().parents[1] / "golden"
    cases = [
        (prefix, case)
        for prefix in found_sets(folder)
        for case in json.loads((folder / f"{prefix}_expected.json").read_text())["cases"]
    ]
    metafunc.parametrize("golden_case", cases, ids=lambda case: f"{case[0]}-{case[1]}", indirect=True)


@pytest.fixture(scope="module")
def golden_sets(golden_dir):
    """Prefix -> (labels, annotations, expected)."""
    return {
        prefix: (
            np.load(golden_dir / f"{prefix}_labels.npz"),
            json.loads((golden_dir / f"{prefix}_annotations.json").read_text()),
            json.loads((golden_dir / f"{prefix}_expected.json").read_text()),
        )
        for prefix in found_sets(golden_dir)
    }


class GoldenCase:
    """One data set of a golden file: its classes, frames and what the official scripts say."""

    def __init__(self, labels, annotations, expected, name):
        categories = annotations["categories"]
        self.classes = ClassTable(
            names=tuple(c["name"] for c in categories),
            colors=tuple(tuple(c["color"]) for c in categories),
            is_thing=tuple(bool(c["isthing"]) for c in categories),
        )
        self.expected = expected["cases"][name]
        self.labels = lambda video, key: labels[f"{name}/{video}/{key}"]
        case = annotations["cases"][name]
        self.truth_json = case["gt"] | {"categories": categories}
        self.prediction_json = case["pred"]
        self.truth = [entry["annotations"] for entry in case["gt"]["annotations"]]
        predicted = {entry["video_id"]: entry["annotations"] for entry in case["pred"]["annotations"]}
        self.names = [entry["video_id"] for entry in case["gt"]["annotations"]]
        self.prediction = [predicted[video] for video in self.names]

    def frames(self, video: int):
        for t, (truth, prediction) in enumerate(zip(self.truth[video], self.prediction[video], strict=True)):
            yield tuple(
                counting.SegmentFrame(self.labels(video, key)[t], counting.make_segments(side["segments_info"]))
                for key, side in (("gt", truth), ("pred", prediction))
            )

    def score(self, *names, windows=(1, 2, 4, 6)):
        settings = Settings(self.classes, windows)
        states = scoring.make_states(metrics.choose(names, PANOPTIC), settings)
        for i, video in enumerate(self.names):
            scoring.score_video(states, video, self.frames(i), settings)
        return scoring.compute(states)


@pytest.fixture
def golden_case(request, golden_sets):
    prefix, name = request.param
    return GoldenCase(*golden_sets[prefix], name)


def write_pngs(folder: pathlib.Path, ids: np.ndarray, stems: list[str]) -> None:
    """Ids `[t, h, w]` as RGB PNGs, id = R + 256 G + 65536 B."""
    folder.mkdir(parents=True)
    for stem, frame in zip(stems, ids.astype(np.int64), strict=True):
        bgr = np.stack([frame >> 16, frame >> 8 & 255, frame & 255], axis=-1).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{stem}.png"), bgr)


def assert_percent(actual, expected, what, tolerance=TOLERANCE):
    """`expected` is a fraction or None, `actual` percent or None."""
    if expected is None:
        assert actual is None, what
    else:
        assert abs(actual / 100 - expected) <= tolerance, f"{what}: {actual / 100} is not {expected}"


def test_vpq(golden_case):
    expected = golden_case.expected["vpq"]
    windows = tuple(int(k) for k in expected["k"])
    result = golden_case.score("vpq", windows=windows)["vpq"]
    for k, means in expected["k"].items():
        for part in ("all", "things", "stuff"):
            found = result["windows"][k][part]
            for name in ("pq", "sq", "rq"):
                assert_percent(found[name], means[part] and means[part][name], f"{part} {name} of {k}")
            assert found["classes"] == (means[part]["n"] if means[part] else 0)
        per_class = {c: row["windows"][k] for c, row in result["per_class"].items() if k in row["windows"]}
        assert per_class.keys() == means.get("per_class", {}).keys()
        for c, row in per_class.items():
            official = means["per_class"][c]
            assert [row[n] for n in ("tp", "fp", "fn")] == [official[n] for n in ("tp", "fp", "fn")], (k, c)
            assert abs(row["iou"] - official["iou"]) <= TOLERANCE
            for name in ("pq", "sq", "rq"):
                assert_percent(row[name], official[name], f"class {c} {name} of {k}")


@pytest.mark.parametrize(
    "windows, key", [("leaderboard", "vpq_mean_k1246"), ("official-script", "vpq_mean_k12468_as_script")]
)
def test_vpq_mean_over_named_windows(golden_case, windows, key):
    result = golden_case.score("vpq", windows=window_lengths(windows))["vpq"]
    for part, value in golden_case.expected["vpq"][key].items():
        assert_percent(result["vpq"][part], None if value is None else value / 100, part)


def test_image_pq_is_vpq_of_one_frame(golden_case):
    result = golden_case.score("pq")["pq"]
    for part in ("all", "things", "stuff"):
        official = golden_case.expected["vpq"]["k"]["1"][part]
        assert_percent(result[part]["pq"], official and official["pq"], part)


def test_stq(golden_case):
    expected = golden_case.expected["stq"]
    result = golden_case.score("stq")["stq"]
    for ours, official in (("stq", "STQ"), ("aq", "AQ"), ("sq", "IoU")):
        assert_percent(result[ours], expected[official], official)
        assert_percent(result[ours], golden_case.expected["stq_deeplab2_class"][official], official, DEEPLAB2_TOLERANCE)
        for video, value in zip(golden_case.names, expected[f"{official}_per_seq"], strict=True):
            assert_percent(result["per_video"][video][ours], value, f"{official} of {video}")
    for ours, official in (("frames", "Length_per_seq"), ("tracks", "gt_tracks_per_seq")):
        assert [result["per_video"][video][ours] for video in golden_case.names] == expected[official]
    assert result["per_class"].keys() == expected["iou_per_class"].keys()
    assert len(result["per_class"]) == expected["n_classes_in_mean"]
    for c, row in result["per_class"].items():
        assert_percent(row["iou"], expected["iou_per_class"][c], f"class {c}")


def test_folders_in_the_official_layout_give_the_same(golden_case, tmp_path):
    for i, (video, frames) in enumerate(zip(golden_case.names, golden_case.truth, strict=True)):
        stems = [pathlib.Path(frame["file_name"]).stem for frame in frames]
        write_pngs(tmp_path / "truth" / "panomasksRGB" / video, golden_case.labels(i, "gt"), stems)
        write_pngs(tmp_path / "results" / "pan_pred" / video, golden_case.labels(i, "pred"), stems)
    (tmp_path / "truth" / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(golden_case.truth_json))
    (tmp_path / "results" / "pred.json").write_text(json.dumps(golden_case.prediction_json))
    result = evaluate_folders(tmp_path / "truth", tmp_path / "results", metrics="vpq,stq")
    assert {name: result[name] for name in ("vpq", "stq")} == golden_case.score("vpq", "stq")


def test_miou_and_consistency_of_vspw(golden_case):
    expected = golden_case.expected["vspw"]
    num_classes = len(golden_case.classes.names)
    semantic, consistency = miou.MeanIoU(golden_case.classes), vc.VideoConsistency(num_classes)
    for i, video in enumerate(golden_case.names):
        confusion = 0
        for truth, prediction in zip(golden_case.labels(i, "sem_gt"), golden_case.labels(i, "sem_pred"), strict=True):
            consistency.watch(truth, prediction)
            confusion = confusion + miou.confusion_of_maps(truth - np.uint8(1), prediction, num_classes)
        semantic.add(video, confusion)
        consistency.update(video)
    result = semantic.compute()
    for ours, official in (
        ("miou", "mIoU"),
        ("pixel_accuracy", "pixel_acc"),
        ("class_accuracy", "class_acc"),
        ("frequency_weighted_iou", "fwIoU"),
    ):
        assert_percent(result[ours], expected[official], official)
    assert result["classes"] == expected["n_gt_classes"]
    assert result["per_class"].keys() == expected["iou_per_gt_class"].keys()
    for c, row in result["per_class"].items():
        assert_percent(row["iou"], expected["iou_per_gt_class"][c], f"class {c}")
    result = consistency.compute()
    for n in (8, 16):
        assert_percent(result[f"mvc{n}"], expected[f"mVC{n}"], f"mVC{n}")
        assert result["windows"][str(n)] == expected[f"mVC{n}_n_windows"]
