"""The table of metrics, and the story of one that is added from outside of the package."""

import json
import subprocess
import sys

import numpy as np
import pytest
from label_scenes import CLASSES, video, write_vipseg

from vps_jax.evaluation import metrics
from vps_jax.evaluation.protocol import INSTANCES, PANOPTIC, SEMANTIC
from vps_jax.types import UserError


def test_choice_of_metrics():
    assert list(metrics.choose(None, PANOPTIC)) == ["vpq", "stq", "pq", "miou", "vc"]
    assert list(metrics.choose(None, SEMANTIC)) == ["miou", "vc"]
    assert list(metrics.choose(None, INSTANCES)) == ["ap"]
    assert list(metrics.choose("all", None)) == list(metrics.METRICS) == list(metrics.choose(["all"], None))
    assert list(metrics.choose("stq, vpq", PANOPTIC)) == ["vpq", "stq"]
    for wrong in ("d", "", [], "ap", "vpq,,stq"):
        with pytest.raises(UserError, match="metrics: .*vpq, stq"):
            metrics.choose(wrong, PANOPTIC)


def test_wrong_names_are_refused_with_the_choices_before_anything_is_read():
    metrics.check_metrics(None, "leaderboard")
    metrics.check_metrics(["vpq", "ap"], (1, 2))
    with pytest.raises(UserError, match="'vpg'.*vpq, stq, pq, miou"):
        metrics.check_metrics("vpg", "leaderboard")
    with pytest.raises(UserError, match="'leaderbord'.*leaderboard, official-script"):
        metrics.check_metrics(None, "leaderbord")
    with pytest.raises(UserError, match="'vpq'.*miou, vc"):
        metrics.check_metrics("vpq", "leaderboard", SEMANTIC)


def test_the_choice_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; from vps_jax.evaluation.metrics import check_metrics; "
    done = subprocess.run([sys.executable, "-c", code + "check_metrics('vpq', (1, 2))"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_headline_is_what_each_metric_puts_first_without_what_is_undefined():
    vpq = {
        "vpq": {"all": 50.0, "things": None, "stuff": 40.0},
        "windows": {"1": {"all": {"pq": 51.0}}, "4": {"all": {"pq": None}}},
    }
    result = {"videos": 3, "vpq": vpq, "stq": {"stq": 7}, "vc": {"mvc8": 1.0, "windows": {"8": 4}}, "pq": {}}
    assert metrics.headline(result) == {"vpq": 50.0, "vpq_stuff": 40.0, "vpq1": 51.0, "stq": 7.0, "mvc8": 1.0}


def test_headline_names_are_those_that_a_score_will_have():
    names = metrics.headline_names("vpq,stq", (1, 4), CLASSES)
    assert names == ["vpq", "vpq_things", "vpq_stuff", "vpq1", "vpq4", "stq"]
    everything = metrics.headline_names("all", (1,), CLASSES)
    assert {"hota", "idf1", "ap", "miou", "mvc8"} <= set(everything)
    with pytest.raises(UserError, match="'nosuch'"):
        metrics.headline_names("nosuch", (1,), CLASSES)


PLUGIN = """
from vps_jax.evaluation.protocol import PANOPTIC, SCORES, Table, merge_videos, per_video


class Coverage:
    '''The share of pixels that the prediction labels.'''

    def __init__(self):
        self.videos = {}

    @classmethod
    def start(cls, settings):
        return cls()

    def update(self, video, counts):
        labelled = counts.pair_prediction != 0
        pixels = counts.shared.sum(axis=0)
        merge_videos(self.videos, {video: (int(pixels[labelled].sum()), int(pixels.sum()))})

    def merge(self, other):
        merge_videos(self.videos, other.videos)

    def compute(self):
        labelled, pixels = (sum(one[side] for one in self.videos.values()) for side in (0, 1))
        one = {video: {"coverage": 100 * a / b} for video, (a, b) in sorted(self.videos.items())}
        return {"coverage": 100 * labelled / pixels if pixels else None, "per_video": one}

    @staticmethod
    def headline(numbers):
        return {"coverage": numbers["coverage"]}

    @staticmethod
    def rows(numbers):
        total = Table(SCORES, "Coverage", ("what", "percent"), [("labelled", numbers["coverage"])])
        return [total, per_video(numbers, ("coverage",))]
"""
STORY = """
import json, sys

from vps_jax.evaluation.metrics import METRICS, Metric, headline
from vps_jax.evaluation.protocol import PANOPTIC
from vps_jax.evaluation.runner import evaluate_folders, print_report

METRICS["coverage"] = Metric("my_metrics:Coverage", (PANOPTIC,), default=False)

if __name__ == "__main__":
    result = evaluate_folders(
        "truth", "results", metrics="vpq,coverage", windows=(1,), processes=2, per_video="videos.csv"
    )
    print_report(result)
    json.dump(headline(result), open("headline.json", "w"))
"""


def test_a_metric_from_outside_costs_its_file_and_one_row(tmp_path):
    truth = video(np.array([[[1, 1, 7, 7]]]), {1: 0, 7: 2})
    half = video(np.array([[[1, 1, 0, 0]]]), {1: 0, 7: 2})
    write_vipseg(tmp_path / "truth", tmp_path / "results", {"1_a": (truth, half), "2_b": (truth, truth)})
    (tmp_path / "my_metrics.py").write_text(PLUGIN)
    (tmp_path / "story.py").write_text(STORY)
    done = subprocess.run([sys.executable, "story.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Coverage" in done.stdout and "75.00" in done.stdout
    assert json.loads((tmp_path / "headline.json").read_text())["coverage"] == 75.0
    rows = [line.split(",") for line in (tmp_path / "videos.csv").read_text().splitlines()]
    assert [(row[0], row[-1]) for row in rows] == [("video", "coverage"), ("1_a", "50.0"), ("2_b", "100.0")]
