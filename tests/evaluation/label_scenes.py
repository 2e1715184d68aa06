"""Tiny label maps for the tests of the evaluation room, and a slow twin of VPQ written from the definition."""

import json

import cv2
import numpy as np
from hypothesis import strategies as st

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation.counts import SegmentFrame, make_segments

# classes 0, 1 are stuff, 2, 3 things
CLASSES = ClassTable(
    names=("sky", "grass", "cat", "dog"),
    colors=((0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4)),
    is_thing=(False, False, True, True),
)


def frame(pixels, categories, *, crowd=(), unlisted=()) -> SegmentFrame:
    """Frame of an id map; `categories` maps id -> class, areas are the true ones."""
    pixels = np.asarray(pixels, np.int64)
    ids = [i for i in np.unique(pixels).tolist() if i and i not in unlisted]
    rows = [
        {"id": i, "category_id": categories[i], "iscrowd": int(i in crowd), "area": int((pixels == i).sum())}
        for i in ids
    ]
    return SegmentFrame(pixels, make_segments(rows))


def video(maps, categories, **options) -> list[SegmentFrame]:
    """Frames of id maps `[t, h, w]`."""
    return [frame(pixels, categories, **options) for pixels in maps]


@st.composite
def random_videos(draw):
    """(truth, prediction) of up to 5 frames of 3x4 pixels, with void, crowds, unlisted ids and changing classes."""
    t = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    sides = []
    for side in range(2):
        maps = np.repeat(rng.integers(0, 6, (t, 3, 2)), 2, axis=2)
        if side:  # half of the pixels agree, so that there are matches
            agree = rng.random(maps.shape) < 0.6
            maps = np.where(agree, sides[0][0], maps)
        sides.append((maps, rng.integers(0, 4, 6)))
    (truth, classes), (prediction, _) = sides
    changed = np.where(rng.random((t, 6)) < 0.1, rng.integers(0, 4, (t, 6)), classes)  # ids may change their class
    crowd = [i for i in range(1, 6) if rng.random() < 0.2]
    unlisted = [5] if rng.random() < 0.2 else []
    return (
        video(truth, classes, crowd=crowd, unlisted=unlisted),
        [frame(pixels, changed[i]) for i, pixels in enumerate(prediction)],
    )


def slow_table(truth, prediction, k, num_classes=4):
    """IoU sum, TP, FP, FN per class over all windows of k frames: the definition, window by window, pixel by pixel."""
    table = np.zeros((num_classes, 4))
    for start in range(len(truth) - k + 1):
        window = slice(start, start + k)
        true, true_map = _gather(truth[window])
        predicted, map_ = _gather(prediction[window])
        for p, row in predicted.items():
            row["area"] = int((map_ == p).sum())
        hits, hit_predictions = set(), set()
        for g, row in true.items():
            for p, other in predicted.items():
                shared = int(((true_map == g) & (map_ == p)).sum())
                if row["crowd"] or row["category"] != other["category"] or not shared:
                    continue
                union = other["area"] + row["area"] - shared - int(((true_map == 0) & (map_ == p)).sum())
                if shared / union > 0.5:
                    table[row["category"], :2] += shared / union, 1
                    hits.add(g)
                    hit_predictions.add(p)
        last_crowd = {}
        for g, row in true.items():
            if row["crowd"]:
                last_crowd[row["category"]] = g
            elif g not in hits:
                table[row["category"], 3] += 1
        for p, row in predicted.items():
            if p in hit_predictions:
                continue
            excused = ((true_map == 0) | (true_map == last_crowd.get(row["category"], 0))) & (map_ == p)
            if excused.sum() / row["area"] <= 0.5:
                table[row["category"], 2] += 1
    return table


def _gather(frames):
    rows = {}
    for one in frames:
        ids, categories, crowd, areas = one.segments
        for i, category, is_crowd, area in zip(ids.tolist(), categories.tolist(), crowd, areas, strict=True):
            row = rows.setdefault(i, {"category": category, "crowd": bool(is_crowd), "area": 0})
            row["area"] += int(area)
    return rows, np.stack([one.pixels for one in frames])


def write_png(path, pixels) -> None:
    """Ids `[h, w]` as an RGB PNG, id = R + 256 G + 65536 B, or uint8 / uint16 arrays as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.asarray(pixels)
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = np.stack([pixels >> 16 & 255, pixels >> 8 & 255, pixels & 255], axis=-1).astype(np.uint8)  # B, G, R
    assert cv2.imwrite(str(path), pixels)


def rows_of(one: SegmentFrame) -> list[dict]:
    return [
        {"id": i, "category_id": c, "iscrowd": int(crowd), "area": a}
        for i, c, crowd, a in zip(*(column.tolist() for column in one.segments), strict=True)
    ]


def write_vipseg(root, results, videos, *, split="val", classes=CLASSES) -> None:
    """Videos {name: (truth frames, predicted frames)} in VIPSeg's official layout."""
    truth = {
        "videos": [],
        "annotations": [],
        "categories": [
            {"id": c, "name": name, "isthing": int(classes.is_thing[c]), "color": list(classes.colors[c])}
            for c, name in enumerate(classes.names)
        ],
    }
    predictions = {"annotations": []}
    for name, (true, predicted) in videos.items():
        stems = [f"{3 * t + 2:08d}" for t in range(len(true))]
        h, w = true[0].pixels.shape
        truth["videos"].append(
            {
                "video_id": name,
                "images": [{"id": stem, "width": w, "height": h, "file_name": f"{stem}.png"} for stem in stems],
            }
        )
        for side, suffix, into, folder in (
            (true, ".png", truth, root / "panomasksRGB"),
            (predicted, ".jpg", predictions, results / "pan_pred"),
        ):
            annotations = []
            for stem, one in zip(stems, side, strict=True):
                annotations.append({"file_name": stem + suffix, "image_id": stem, "segments_info": rows_of(one)})
                write_png(folder / name / f"{stem}.png", one.pixels)
            into["annotations"].append({"video_id": name, "annotations": annotations})
    root.mkdir(parents=True, exist_ok=True)
    (root / f"panoptic_gt_VIPSeg_{split}.json").write_text(json.dumps(truth))
    results.mkdir(parents=True, exist_ok=True)
    (results / "pred.json").write_text(json.dumps(predictions))
