"""Damaged truths and results: one line that says what is wrong, or a score in 0..100 of input that is whole."""

import json
import math
import pathlib
import shutil

import mutations
import numpy as np
import pytest
from label_scenes import frame, video, write_png, write_vipseg
from PIL import Image

from vps_jax.datasets import rle
from vps_jax.evaluation import metrics
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.types import UserError

KINDS = {1: 0, 7: 2, 8: 3, 70000: 2}


def draw_vipseg(root: pathlib.Path) -> None:
    maps = np.full((3, 4, 6), 1)
    maps[:, 2:, :4] = 7
    maps[:, :, 5] = 0
    other = maps.copy()
    other[1:][other[1:] == 7] = 70000
    empty = [frame(np.zeros((2, 2), int), {})]
    scenes = {"0_v": (video(maps, KINDS, crowd=(1,)), video(other, KINDS)), "1_v": (empty, empty)}
    write_vipseg(root / "truth", root / "results", scenes)


def draw_vspw(root: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for v in ("0_v", "1_v"):
        for t in range(3):
            write_png(root / "truth/data" / v / "mask" / f"{t:08d}.png", rng.integers(0, 4, (3, 4)).astype(np.uint8))
            write_png(root / "results" / v / f"{t:08d}.png", rng.integers(0, 4, (3, 4)).astype(np.uint8))
    (root / "truth/val.txt").write_text("0_v\n1_v\n")


def draw_ytvis(root: pathlib.Path) -> None:
    masks = np.zeros((3, 4, 6), bool)
    masks[0, 1:3, 1:5] = masks[1, :2, :2] = masks[2, 3:] = True
    codes = [{"size": [4, 6], "counts": rle.of_mask(mask).tolist()} for mask in masks]
    truth = {
        "videos": [{"id": i, "height": 4, "width": 6, "length": 2, "file_names": ["a", "b"]} for i in (1, 2)],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 3, "iscrowd": 0, "segmentations": codes[:2], "areas": [8, 4]},
            {"id": 2, "video_id": 2, "category_id": 4, "iscrowd": 1, "segmentations": [None, codes[2]], "areas": None},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    found = [
        {"video_id": 1, "category_id": 3, "score": 0.9, "segmentations": codes[:2]},
        {"video_id": 2, "category_id": 4, "score": 0.4, "segmentations": [codes[1], None]},
    ]
    for folder in ("truth/val", "results"):
        (root / folder).mkdir(parents=True)
    (root / "truth/val/instances.json").write_text(json.dumps(truth))
    (root / "results/results.json").write_text(json.dumps(found))


def draw_step(root: pathlib.Path) -> None:
    for v in ("0002", "0006"):
        for t in range(2):
            ids = np.array([[0, 0, 13, 13], [255, 11, 11, 13]]) + (np.array([[0, 0, 1, 1], [0, 0, 0, 1]]) << 16)
            write_png(root / "truth/panoptic_maps/val" / v / f"{t:06d}.png", ids)
            write_png(root / "results" / v / f"{t:06d}.png", np.roll(ids, t, axis=1))


def draw_cityscapes(root: pathlib.Path) -> None:
    rows = [{"id": 70000, "category_id": 7, "iscrowd": 0, "area": 2}, {"id": 3, "category_id": 26, "area": 2}]
    names = [f"{v:04d}_{2 * v + k:04d}_aachen" for v in (5, 15) for k in (1, 2)]
    truth = [{"image_id": name, "file_name": f"{name}_final_mask.png", "segments_info": rows} for name in names]
    found = [{"image_id": name, "segments_info": rows} for name in names]
    for name in names:
        write_png(root / f"truth/val/panoptic_video/{name}_final_mask.png", np.array([[70000, 70000, 3, 3]]))
        write_png(root / f"results/pan_pred/{name}.png", np.array([[70000, 3, 3, 3]]))
    categories = [{"id": 7, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}]
    content = {"annotations": truth, "categories": categories}
    (root / "truth/panoptic_gt_val_city_vps.json").write_text(json.dumps(content))
    (root / "results/pred.json").write_text(json.dumps({"annotations": found}))


def painted(path: pathlib.Path, mode: str) -> np.ndarray:
    """Pixels of a PNG by another decoder, its data whole."""
    with Image.open(path) as image:
        assert image.mode == mode
        pixels = np.asarray(image).astype(np.int64)
    return pixels @ [1, 256, 65536] if mode == "RGB" else pixels


def check_vipseg(root: pathlib.Path, videos: int) -> None:
    """What the format asks for, written down once more and independently."""
    truth = json.loads((root / "truth/panoptic_gt_VIPSeg_val.json").read_text())
    found = json.loads((root / "results/pred.json").read_text())
    by_video = [{str(one["video_id"]): one["annotations"] for one in side["annotations"]} for side in (truth, found)]
    listed = truth.get("videos")
    names = list(by_video[0]) if listed is None else [str(one["video_id"]) for one in listed]
    assert len(set(names)) == len(names) == videos
    for name in names:
        frames = [side[name] for side in by_video]
        assert len(frames[0]) == len(frames[1])
        sizes = set()
        for one, other in zip(*frames, strict=True):
            stems = [pathlib.PurePosixPath(row.get("file_name") or row["image_id"]).stem for row in (one, other)]
            assert stems[0] == stems[1]
            maps = [
                painted(root / folder / name / f"{stems[0]}.png", "RGB")
                for folder in ("truth/panomasksRGB", "results/pan_pred")
            ]
            sizes |= {maps[0].shape, maps[1].shape}
            assert {row["id"] for row in other["segments_info"]} == set(np.unique(maps[1]).tolist()) - {0}
            for row in one["segments_info"]:
                assert row.get("area", 0) in (None, (maps[0] == row["id"]).sum()) or "area" not in row
            for row in (*one["segments_info"], *other["segments_info"]):
                assert type(row["id"]) is type(row["category_id"]) is int
        assert len(sizes) <= 1


def check_vspw(root: pathlib.Path, videos: int) -> None:
    names = (root / "truth/val.txt").read_text().split()
    assert len(set(names)) == len(names) == videos
    for name in names:
        folders = root / "truth/data" / name / "mask", root / "results" / name
        stems = [sorted(path.name for path in folder.glob("*.png")) for folder in folders]
        assert stems[0] == stems[1] != []
        assert len({painted(folder / stem, "L").shape for folder in folders for stem in stems[0]}) == 1


def check_ytvis(root: pathlib.Path, videos: int) -> None:
    truth = json.loads((root / "truth/val/instances.json").read_text())
    found = json.loads((root / "results/results.json").read_text())
    known = {one["id"]: one for one in truth["videos"]}
    assert len(known) == len(truth["videos"]) == videos
    classes = {row["id"] for row in truth["categories"]}
    assert all(math.isfinite(row["score"]) for row in found)
    for row in (*truth["annotations"], *found):
        one = known[row["video_id"]]
        assert row["category_id"] in classes
        length = one["length"] if one.get("file_names") is None else len(one["file_names"])
        assert len(row["segmentations"]) == length
        for mask in row["segmentations"]:
            if mask is not None:
                assert mask["size"] == [one["height"], one["width"]]
                assert sum(mask["counts"]) == one["height"] * one["width"] and min(mask["counts"]) >= 0


def check_step(root: pathlib.Path, videos: int) -> None:
    truth, results = root / "truth/panoptic_maps/val", root / "results"
    names = [path.name for path in truth.iterdir() if path.is_dir()]
    assert len(names) == videos
    results = next((results / inner for inner in ("panoptic_maps/val", "val") if (results / inner).is_dir()), results)
    for name in names:
        stems = [sorted(path.name for path in (side / name).glob("*.png")) for side in (truth, results)]
        assert stems[0] == stems[1]
        maps = [painted(side / name / stem, "RGB") for side in (truth, results) for stem in stems[0]]
        assert len({one.shape for one in maps}) <= 1
        assert all((((one & 255) < 19) | ((one & 255) == 255)).all() for one in maps)


def check_cityscapes(root: pathlib.Path, videos: int) -> None:
    truth = json.loads((root / "truth/panoptic_gt_val_city_vps.json").read_text())["annotations"]
    found = json.loads((root / "results/pred.json").read_text())["annotations"]
    named = [
        {str(row.get("image_id") or row["file_name"]).split("_final")[0]: row for row in rows}
        for rows in (truth, found)
    ]
    assert len(named[0]) == len(truth) and named[0].keys() <= named[1].keys()
    assert len({name.partition("_")[0] for name in named[0]}) == videos
    for name, row in named[0].items():
        true, predicted = (
            painted(root / folder, "RGB")
            for folder in (f"truth/val/panoptic_video/{name}_final_mask.png", f"results/pan_pred/{name}.png")
        )
        assert true.shape == predicted.shape
        assert {one["id"] for one in named[1][name]["segments_info"]} == set(np.unique(predicted).tolist()) - {0}
        for one in row["segments_info"]:
            assert (true == one["id"]).any() and one.get("area") in (None, (true == one["id"]).sum())


LAYOUTS = {
    "vipseg": (draw_vipseg, check_vipseg),
    "vspw": (draw_vspw, check_vspw),
    "ytvis": (draw_ytvis, check_ytvis),
    "kitti_step": (draw_step, check_step),
    "cityscapes_vps": (draw_cityscapes, check_cityscapes),
}


def fuzz(layout: str, seeds, tmp_path: pathlib.Path, capfd) -> int:
    """How many of the seeds still gave a score."""
    draw, check = LAYOUTS[layout]
    draw(tmp_path / "whole")
    scored = 0
    for seed in seeds:
        root = tmp_path / str(seed)
        shutil.copytree(tmp_path / "whole", root)
        what = mutations.mutate((root / "truth", root / "results"), np.random.default_rng(seed))
        try:
            result = evaluate_folders(root / "truth", root / "results", metrics="all", windows=(1, 2))
        except UserError as error:
            assert "\n" not in str(error) and "report it" not in str(error), f"{seed}: {what}: {error}"
        else:
            numbers = metrics.headline(result)
            assert all(0 <= value <= 100 for value in numbers.values()), f"{seed}: {what}: {numbers}"
            json.dumps(result, allow_nan=False)
            try:
                check(root, result["videos"])
            except Exception as error:
                raise AssertionError(f"{seed}: {what}: scored, but not whole: {error!r}") from error
            scored += 1
        shutil.rmtree(root)
    assert capfd.readouterr() == ("", "")
    return scored


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_never_gives_a_traceback_or_a_wrong_score(layout, tmp_path, capfd):
    scored = fuzz(layout, range(60), tmp_path, capfd)
    assert 3 <= scored <= 40  # most damage is found, some (a field that nobody reads) is none


@pytest.mark.acceptance
@pytest.mark.parametrize("layout", LAYOUTS)
def test_six_hundred_damages_of_a_layout(layout, tmp_path, capfd):
    assert fuzz(layout, range(1000, 1600), tmp_path, capfd)
