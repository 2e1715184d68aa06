"""Official layouts read pixel by pixel, from their descriptions (docs/reference/data_sets.md) and not from our code.

A reader yields (split, video, image file, labels): a list of rows of (class, object) with None for void; classes are
positions in the official list, objects count from 1 per video and class, 0 is none. For sets whose masks may overlap a
pixel is the set of its (class, object). Labels are None where the split has none.
"""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

VOID = None


def pixels(path):
    return np.asarray(Image.open(path)).astype(int).tolist()


class Numbers:
    """Objects of a class count from 1 in the order in which they are asked for."""

    def __init__(self):
        self.known, self.seen = {}, {}

    def __call__(self, category, key):
        if (category, key) not in self.known:
            self.seen[category] = self.seen.get(category, 0) + 1
            self.known[category, key] = self.seen[category]
        return self.known[category, key]


def ade20k_panoptic(root, things):
    """Semantic value - 1 is the class; an instance is painted over it; a thing without instance is void."""
    for split, name in (("train", "training"), ("val", "validation")):
        for image in sorted((root / "images" / name).iterdir()):
            semantic = pixels(root / "annotations" / name / f"{image.stem}.png")
            objects = pixels(root / "annotations_instance" / name / f"{image.stem}.png")
            number = Numbers()
            for key in sorted({(r, g) for row in objects for r, g, _ in row if g}):
                number(things[key[0] - 1], key)
            rows = []
            for semantic_row, object_row in zip(semantic, objects, strict=True):
                row = []
                for value, (r, g, _) in zip(semantic_row, object_row, strict=True):
                    if g:
                        row.append((things[r - 1], number(things[r - 1], (r, g))))
                    else:
                        row.append(VOID if value == 0 or value - 1 in things else (value - 1, 0))
                rows.append(row)
            yield split, image.stem, image, rows


def cityscapes_panoptic(root, things):
    """v // 1000 is the label id from 1000 on, v itself below; 19 label ids are evaluated; a group is an instance."""
    evaluated = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
    for split in ("train", "val"):
        for image in sorted((root / "leftImg8bit" / split).glob("*/*.png")):
            base = image.name.removesuffix("_leftImg8bit.png")
            ids = pixels(root / "gtFine" / split / image.parent.name / f"{base}_gtFine_instanceIds.png")
            number, table = Numbers(), {}
            for v in sorted({v for row in ids for v in row}):
                label = v // 1000 if v >= 1000 else v
                table[v] = (label, number(label, v) if label in things else 0) if label in evaluated else VOID
            yield split, base, image, [[table[v] for v in row] for row in ids]


def mapillary_vistas(root, things):
    """Segment ids R + 256 G + 65536 B, category ids from 1."""
    for split, name in (("train", "training"), ("val", "validation")):
        folder = root / name / "v1.2" / "panoptic"
        for entry in json.loads((folder / "panoptic_2018.json").read_text())["annotations"]:
            number, table = Numbers(), {0: VOID}
            for segment in entry["segments_info"]:
                category = segment["category_id"] - 1
                table[segment["id"]] = category, number(category, segment["id"]) if category in things else 0
            rows = [[table[r + 256 * g + 65536 * b] for r, g, b in row] for row in pixels(folder / entry["file_name"])]
            yield split, entry["image_id"], root / name / "images" / f"{entry['image_id']}.jpg", rows


def kitti_step(root, things):
    """R is the class, 256 G + B the number; 255 is void; number 0 is no object; persons and cars have objects."""
    for split in ("train", "val", "test"):
        for folder in sorted((root / "images" / split).iterdir()):
            maps, number = root / "panoptic_maps" / split / folder.name, Numbers()
            frames = {i.stem: pixels(maps / i.name) if maps.exists() else None for i in sorted(folder.iterdir())}
            everything = {(r, 256 * g + b) for rows in frames.values() for row in rows or () for r, g, b in row}
            for r, n in sorted(everything):
                if n and r in (11, 13):
                    number(r, n)
            for stem, rows in frames.items():
                if rows is not None:
                    rows = [
                        [
                            VOID if r == 255 else (r, number(r, 256 * g + b) if g + b and r in (11, 13) else 0)
                            for r, g, b in row
                        ]
                        for row in rows
                    ]
                yield split, folder.name, folder / f"{stem}.png", rows


def cityscapes_vps(root, things, colors):
    """Stuff by colour; an instance (id from 1000) has the class of most of its pixels; other thing pixels are void."""
    for split in ("train", "val", "test"):
        images = sorted((root / split / "img").iterdir())
        if split == "test":
            yield from ((split, i.name.split("_")[0], i, None) for i in images)
            continue
        triples = list(zip(images, *(sorted((root / split / p).iterdir()) for p in ("cls", "inst")), strict=True))
        for video in dict.fromkeys(i.name.split("_")[0] for i in images):
            own = [t for t in triples if t[0].name.startswith(video + "_")]
            found = []
            for image, cls, inst in own:
                classes = [[colors.get(tuple(c)) for c in row] for row in pixels(cls)]
                ids, votes = pixels(inst), {}
                for class_row, id_row in zip(classes, ids, strict=True):
                    for c, v in zip(class_row, id_row, strict=True):
                        if v >= 1000:
                            votes.setdefault(v, []).append(c)
                kinds = {v: max(set(cs), key=cs.count) for v, cs in votes.items()}
                rows = [
                    [
                        (kinds[v], v % 1000) if v >= 1000 else (VOID if c is None or c in things else (c, None))
                        for c, v in zip(class_row, id_row, strict=True)
                    ]
                    for class_row, id_row in zip(classes, ids, strict=True)
                ]
                found.append((image, rows))
            number = Numbers()
            for key in sorted({p for _, rows in found for row in rows for p in row if p and p[1] is not None}):
                number(*key)
            for image, rows in found:
                yield (
                    split,
                    video,
                    image,
                    [[p and (p[0], 0 if p[1] is None else number(*p)) for p in row] for row in rows],
                )


def tracks(videos, annotations, folder_of):
    """YouTube-VIS' form: tracks are numbered per video and class in the order of the json; pixels are sets."""
    for split, video in videos:
        own = [row for row in annotations[split] if row["video_id"] == video["id"]] if annotations[split] else None
        number = Numbers()
        keys = [(row["category_id"] - 1, number(row["category_id"] - 1, row["id"])) for row in own or ()]
        for i, name in enumerate(video["file_names"]):
            rows = None
            if own is not None:
                rows = [[set() for _ in range(video["width"])] for _ in range(video["height"])]
                for key, row in zip(keys, own, strict=True):
                    paint(rows, row["segmentations"][i], key)
            yield split, name.split("/")[0], folder_of(split) / name, rows


def paint(rows, code, key):
    if code is None:
        return
    if isinstance(code["counts"], list):
        code = coco_mask.frPyObjects(code, *code["size"])
    for y, x in np.argwhere(coco_mask.decode(code)).tolist():
        rows[y][x].add(key)


def youtube_vis_2021(root, things):
    names = {"train": "train", "val": "valid"}
    jsons = {s: json.loads((root / n / "instances.json").read_text()) for s, n in names.items()}
    videos = [(split, video) for split, content in jsons.items() for video in content["videos"]]
    annotations = {split: content.get("annotations") for split, content in jsons.items()}
    yield from tracks(videos, annotations, lambda split: root / names[split] / "JPEGImages")


def ovis(root, things):
    names = {"train": "train", "val": "valid"}
    jsons = {s: json.loads((root / f"annotations_{n}.json").read_text()) for s, n in names.items()}
    videos = [(split, video) for split, content in jsons.items() for video in content["videos"]]
    annotations = {split: content.get("annotations") for split, content in jsons.items()}
    yield from tracks(videos, annotations, lambda split: root / names[split])


def burst(root, things):
    """Text codes of the sequence's size; masks under 100 pixels do not count; one class."""
    for split, name in (("train", "train/train.json"), ("val", "val/all_classes.json")):
        for sequence in json.loads((root / name).read_text())["sequences"]:
            own = f"{sequence['dataset']}/{sequence['seq_name']}"
            size = [sequence["height"], sequence["width"]]
            names = sorted(sequence["track_category_ids"], key=int)
            for image, masks in zip(sequence["annotated_image_paths"], sequence["segmentations"], strict=True):
                rows = [[set() for _ in range(size[1])] for _ in range(size[0])]
                for track, mask in masks.items():
                    code = {"size": size, "counts": mask["rle"]}
                    if coco_mask.area({"size": size, "counts": mask["rle"].encode()}) >= 100:
                        paint(rows, code, (0, 1 + names.index(track)))
                yield split, own, root / "frames" / split / own / image, rows
