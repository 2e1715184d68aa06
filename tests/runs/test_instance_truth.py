"""`vps-jax data instances`: VIPSeg's things as YouTube-VIS writes them; results of the same masks score 100."""

import json

import numpy as np
import pytest

from vps_jax import cli
from vps_jax.data import synthetic, vipseg_convert
from vps_jax.datasets import dataset, rle
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.media.result_folders import make_writer
from vps_jax.runs import instance_truth
from vps_jax.types import InstanceMask, PanopticFrame, UserError

SPEC = dataset("vipseg")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two videos in VIPSeg's evaluation layout."""
    folder = tmp_path_factory.mktemp("vipseg")
    synthetic.synthesize(folder / "raw", train=0, val=2, test=0, sizes=((64, 128),), lengths=(4,), progress=False)
    vipseg_convert.convert(folder / "raw", folder / "truth", height=64, progress=False)
    return folder / "truth"


def main(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code, *capsys.readouterr()


def masks_of(video):
    """Value -> mask `[t, h, w]` of every object, from the label maps."""
    values = np.stack([SPEC.read_label(video, i).values for i in range(len(video.images))])
    return {v: values == v for v in np.unique(values[SPEC.labels.is_instance[values]]).tolist()}


def test_objects_are_those_of_the_label_maps(root, tmp_path, capsys):
    out = tmp_path / "truth.json"
    code, said, err = main(capsys, "data", "instances", "vipseg", "--source", root, "--out", out)
    content = json.loads(out.read_text())
    videos = SPEC.videos(root, "val")
    expected = [(video.name, v, mask) for video in videos for v, mask in masks_of(video).items()]
    assert code == 0 and said == f"2 videos, {len(expected)} objects -> {out}\n", err
    assert [row["id"] for row in content["annotations"]] == list(range(1, len(expected) + 1))
    assert len(content["categories"]) == 58 and {row["id"] for row in content["categories"]} >= {48, 60}
    found = {}
    for row in content["annotations"]:
        full = [
            np.zeros((64, 128), bool) if code is None else rle.to_mask(rle.parse_counts(code["counts"]), 64, 128)
            for code in row["segmentations"]
        ]
        assert row["areas"] == [code and int(mask.sum()) for code, mask in zip(row["segmentations"], full, strict=True)]
        found[row["video_id"], row["category_id"], np.stack(full).tobytes()] = row
    classes = [SPEC.classes.official_ids[SPEC.labels.classes[v]] for _, v, _ in expected]
    assert set(found) == {(name, c, m.tobytes()) for (name, _, m), c in zip(expected, classes, strict=True)}


def test_results_of_the_same_masks_are_perfect(root, tmp_path):
    """With the class list of the 58 things, as a model has it that has learned instances in a group of its own."""
    instance_truth.write("vipseg", root, "val", tmp_path / "truth.json", progress=False)
    writer = make_writer(tmp_path / "out", "ytvis", SPEC.classes)
    for video in SPEC.videos(root, "val"):
        objects = list(enumerate(masks_of(video).items(), 1))
        with writer.video(video.name) as result:
            for i, image in enumerate(video.images):
                instances = [
                    InstanceMask(track, int(SPEC.labels.classes[v]), 0.9, mask[i])
                    for track, (v, mask) in objects
                    if mask[i].any()
                ]
                empty = np.zeros((64, 128), np.int32)
                result.write(PanopticFrame(image.stem, empty.astype(np.uint8), empty, instances=tuple(instances)))
    scores = evaluate_folders(tmp_path / "truth.json", tmp_path / "out", progress=False)
    assert scores["ap"]["ap"] == pytest.approx(100)


def test_data_without_objects_are_named(tmp_path, root):
    with pytest.raises(UserError, match="no split 'night'; expected one of .*val"):
        instance_truth.write("vipseg", root, "night", tmp_path / "x.json")
    with pytest.raises(UserError, match="split test has no objects"):
        instance_truth.write("vipseg", root, "test", tmp_path / "x.json", progress=False)
    with pytest.raises(UserError, match="nuscenes"):
        instance_truth.write("nuscenes", root, "val", tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
