"""Choosing weights and scales from kept scores: equal to running every candidate and scoring its folder."""

import json
import runpy

import cv2
import numpy as np
import pytest
from test_ensemble import CLASSES, alone, image_member, run, vps, vss

from vps_jax.config import EnsembleConfig, MemberConfig
from vps_jax.datasets.colors import SegmentColors
from vps_jax.ensemble import tuning
from vps_jax.ensemble.tuning import Candidate, Trial, candidates, tune, write_tuned
from vps_jax.evaluation.metrics import headline
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.infer.predict import predict_video
from vps_jax.media import result_folders
from vps_jax.media.sources import open_sources
from vps_jax.parsing import parse
from vps_jax.types import UserError


def write_truth(root, video, frames):
    """VIPSeg's converted layout with one video, from panoptic frames and noise images."""
    colors = SegmentColors(CLASSES)
    (root / "images" / video).mkdir(parents=True)
    (root / "panomasksRGB" / video).mkdir(parents=True)
    images, annotations = [], []
    for image, frame in frames:
        cv2.imwrite(str(root / "images" / video / f"{frame.stem}.png"), image)
        rgb, rows = result_folders.encode_frame(frame, colors, CLASSES.official_ids)
        name = f"{frame.stem}.png"
        cv2.imwrite(str(root / "panomasksRGB" / video / name), rgb[..., ::-1])
        height, width = image.shape[:2]
        images.append({"id": frame.stem, "file_name": name, "height": height, "width": width})
        annotations.append({"image_id": frame.stem, "file_name": name, "segments_info": rows})
    content = {
        "videos": [{"video_id": video, "images": images}],
        "annotations": [{"video_id": video, "annotations": annotations}],
        "categories": CLASSES.rows(),
    }
    (root / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four frames of smooth noise with a moving square; the truth is what the panoptic model of seed 1 says of them."""
    root = tmp_path_factory.mktemp("truth")
    small = np.random.default_rng(0).integers(40, 215, (5, 7, 3), np.uint8)
    images = []
    for i in range(4):
        image = cv2.resize(np.roll(small, i // 2, axis=1), (90, 60), interpolation=cv2.INTER_CUBIC)
        image[10:30, 4 * i + 4 : 4 * i + 24] = (0, 0, 255)
        images.append(image)
    (root / "frames").mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(root / "frames" / f"{i:08d}.png"), image)
    teacher = vps(seed=1)
    (video,) = open_sources([root / "frames"])
    write_truth(root, "v", list(zip(images, predict_video(video, alone(teacher), CLASSES), strict=True)))
    return root


def test_candidates_hold_every_member_alone_and_the_plain_mean():
    members = [image_member(), vps(), vss("x", 1)]
    found = candidates(members, steps=2)
    assert len(found) == len(set(found))
    for i in range(3):
        weights = tuple(float(k == i) for k in range(3))
        assert {c.scales for c in found if c.weights == weights} == (
            {("logits",) * 3, ("log_scores", "logits", "logits")} if i == 0 else {("logits",) * 3}
        )
    assert Candidate((1 / 3,) * 3, ("logits",) * 3) in found
    assert len(found) == 2 * 4 + 3  # with the image model: alone, two halves, thirds; without it: 3


def test_tuning_scores_what_running_would_give(tmp_path, monkeypatch, root):
    members = [vps(), vss("teacher", 1), image_member()]
    run(monkeypatch, [root], tmp_path / "out", members, keep=tmp_path / "kept")
    trials = tune(
        members, tmp_path / "kept", tmp_path / "out", root, tried=candidates(members, steps=2),
        windows="1,2", progress=False,
    )  # fmt: skip
    assert [t.numbers["vpq"] for t in trials] == sorted((t.numbers["vpq"] for t in trials), reverse=True)
    names = sorted(member.name for member in members)
    teacher = tuning.alone(trials, names.index("teacher"))
    assert teacher.numbers["vpq_stuff"] > 99 > 50 > tuning.alone(trials, names.index("vps")).numbers["vpq_stuff"]
    for trial in (teacher, tuning.plain_mean(trials)):
        chosen = dict(zip(names, zip(*trial.candidate, strict=True), strict=True))
        again = [m._replace(weight=chosen[m.name][0], scale=chosen[m.name][1]) for m in members]
        run(monkeypatch, [root], tmp_path / "again", again)
        result = evaluate_folders(root, tmp_path / "again", metrics=tuning.METRICS, windows="1,2")
        # the run takes the things member's scores unrounded, tuning as they are kept
        assert trial.numbers == pytest.approx(headline(result), abs=0.3)


def test_log_softmax_gives_the_labels_of_logits(tmp_path, monkeypatch, root):
    """A number per pixel, the same for all classes, whatever the members are."""
    members = [vps(), vss("x", 1), image_member()]
    run(monkeypatch, [root], tmp_path / "out", members, keep=tmp_path / "kept")
    tried = [Candidate((0.5, 0.2, 0.3), (scale,) * 3) for scale in ("logits", "log_softmax")]
    tried.append(tried[0]._replace(scales=("log_scores", "logits", "logits")))
    trials = tune(members, tmp_path / "kept", tmp_path / "out", root, tried=tried, windows="1,2", progress=False)
    logits, softmax, other = (next(t for t in trials if t.candidate == c) for c in tried)
    assert logits.numbers == pytest.approx(softmax.numbers, abs=0.1)  # pixels between two equal classes
    assert logits.numbers["miou"] != pytest.approx(other.numbers["miou"], abs=0.1)


def test_missing_scores_are_named(tmp_path, monkeypatch, root):
    members = [vps(), vss("x", 1)]
    run(monkeypatch, [root], tmp_path / "out", members)
    with pytest.raises(UserError, match="members.vps: .*v.scores is missing"):
        tune(members, tmp_path / "kept", tmp_path / "out", root, progress=False)


def test_the_written_config_is_the_best_candidate(tmp_path):
    config = {"members": {"vps": {"checkpoint": "a", "scale": "logits"}, "image": {"checkpoint": "b"}}, "things": "vps"}
    numbers = {"vpq": 40.0, "stq": None}
    trials = [
        Trial(Candidate((0.25, 0.75), ("log_scores", "logits")), numbers | {"vpq": 44.4}),
        Trial(Candidate((0.5, 0.5), ("logits", "logits")), numbers),
        Trial(Candidate((1.0, 0.0), ("logits", "logits")), numbers | {"vpq": 12.0}),
        Trial(Candidate((0.0, 1.0), ("logits", "logits")), numbers | {"vpq": 43.0}),
    ]
    write_tuned(tmp_path / "tuned.py", config, trials, truth="VIPSeg_720P", split="val")
    text = (tmp_path / "tuned.py").read_text()
    found = runpy.run_path(str(tmp_path / "tuned.py"))["get_config"]()
    assert found.things == "vps"
    tuned = parse(EnsembleConfig, found)  # it is a config, with every key
    assert tuned.members == {
        "image": MemberConfig(checkpoint="b", weight=0.25, scale="log_scores"),
        "vps": MemberConfig(checkpoint="a", weight=0.75, scale="logits"),
    }
    for words in (
        "best            vpq 44.40",
        "plain mean      vpq 40.00",
        "vps alone       vpq 43.00",
        "val of VIPSeg_720P",
    ):
        assert words in text
