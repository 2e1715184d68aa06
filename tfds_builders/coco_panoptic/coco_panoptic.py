"""COCO panoptic 2017: images, one json per split, RGB segment ids (spec: data_and_metrics 3)."""

import json
import pathlib

import numpy as np

from tfds_builders import frames

SPLITS = {"train": "train2017", "val": "val2017"}


class CocoPanoptic(frames.FrameBuilder):
    """One record per image; the label is (class + 1) * 256 + instance.

    The class is the position in the json's category list, so ids with gaps become contiguous. Instances of a thing
    class count from 1 per image, stuff has instance 0; a thing beyond the 255th of its class has instance 0 too. Crowd
    segments are instances like others, as in the published loader. The categories travel in the metadata.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The manual folder holds train2017/, val2017/ and annotations/ of COCO panoptic."
    LABEL_CODE = "panoptic"

    def find_videos(self, root: pathlib.Path) -> dict[str, list[frames.Video]]:
        splits = {}
        for split, folder in SPLITS.items():
            file = json_of(root, folder)
            if file.exists():
                splits[split] = read_split(root, folder, json.loads(file.read_text()))
        if not splits:
            raise ValueError(f"{root}: no annotations/panoptic_train2017.json; expected COCO panoptic's layout")
        if not any(splits.values()):
            raise ValueError(f"{root}: the jsons list no image that is there; expected train2017/*.jpg and PNG masks")
        return splits

    def extra_metadata(self, root: pathlib.Path) -> dict:
        files = [json_of(root, folder) for folder in SPLITS.values()]
        return {"categories": next(json.loads(f.read_text())["categories"] for f in files if f.exists())}

    def read_label(self, video: frames.Video, path: pathlib.Path) -> np.ndarray:
        rgb = frames.read_png(path)
        if rgb.ndim != 3:
            raise frames.BadFrame(f"{path}: single-channel PNG; expected RGB segment ids")
        ids = rgb[..., :3].astype(np.int64) @ (65536, 256, 1)  # OpenCV gives BGR
        order, codes = video.segments
        place = np.minimum(np.searchsorted(order, ids), len(order) - 1)
        return np.where(order[place] == ids, codes[place], 0).astype(np.uint16)

    def instance_values(self) -> np.ndarray:
        values = np.arange(65536)
        return (values >= 256) & (values % 256 > 0)

    def known_values(self) -> np.ndarray:
        values = np.arange(65536)
        return (values == 0) | (values >= 256)


Builder = CocoPanoptic


def json_of(root: pathlib.Path, folder: str) -> pathlib.Path:
    return root / "annotations" / f"panoptic_{folder}.json"


def read_split(root: pathlib.Path, folder: str, content: dict) -> list[frames.Video]:
    """One single-frame video per annotated image that is there, in the json's order."""
    index = {row["id"]: i for i, row in enumerate(content["categories"])}
    is_thing = [bool(row["isthing"]) for row in content["categories"]]
    names = {row["id"]: row["file_name"] for row in content["images"]}
    videos = []
    for annotation in content["annotations"]:
        image = root / folder / names[annotation["image_id"]]
        mask = root / "annotations" / f"panoptic_{folder}" / annotation["file_name"]
        segments = codes_of(annotation["segments_info"], index, is_thing)
        found = image.exists() and mask.exists()
        videos.append(
            frames.Video(
                image.stem,
                (image,) if found else (),
                (mask,) if found else (),
                unlabelled=int(image.exists() and not found),
                segments=segments,
            )
        )
    return [video for video in videos if video.images]


def codes_of(segments: list[dict], index: dict[int, int], is_thing: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Segment ids in ascending order, starting with 0 for void, and the label value of each."""
    codes, seen = {0: 0}, {}
    for segment in segments:
        category = index[segment["category_id"]]
        instance = 0
        if is_thing[category]:
            seen[category] = seen.get(category, 0) + 1
            instance = seen[category] if seen[category] < 256 else 0
        codes[segment["id"]] = (category + 1) * 256 + instance
    order = sorted(codes)
    return np.array(order, np.int64), np.array([codes[i] for i in order], np.int64)
