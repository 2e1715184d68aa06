"""VIPSeg as downloaded -> the evaluation layout, in the three official steps (spec: metrics 1.4-1.6).

Resize, RGB segment ids with one truth json, one json per split. What differs from the official scripts: random colours
are seeded by the video's name, black is never drawn, test images are resized too and get a json with empty annotations.
"""

import concurrent.futures
import io
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Iterator

import numpy as np

from vps_jax import files
from vps_jax.datasets import vipseg
from vps_jax.datasets.colors import SegmentColors, color_id
from vps_jax.types import UserError

PARTS = ".conversion"  # json of the videos that are done, while others are not


def convert(
    source: str | pathlib.Path, out: str | pathlib.Path, *, height: int | None = 720, progress: bool = True
) -> dict[str, int]:
    """Convert a raw VIPSeg folder.

    Writes `images/`, `panomasks/`, `panomasksRGB/`, `panoptic_gt_VIPSeg.json` and one json per split, the split lists
    and `panoVIPSeg_categories.json`. Started again after an interruption it goes on with the videos that are missing.

    Args:
      source: folder with `imgs/`, `panomasks/` and the split lists.
      out: new folder, or one that an interrupted conversion left.
      height: frame height; the width becomes int(height * w / h), images bilinear, JPEG at PIL's default quality, masks
        nearest. None keeps the files as they are.
      progress: show a progress bar.

    Returns:
      Counts: videos and frames.

    Raises:
      UserError: the source has not the raw layout, a file is broken, or `out` holds something else.
    """
    source, out = pathlib.Path(source), pathlib.Path(out)
    lists = read_lists(source)
    if (out / "panoptic_gt_VIPSeg.json").exists() and not (out / PARTS).exists():
        return count(json.loads((out / "panoptic_gt_VIPSeg.json").read_text()), lists, out)
    open_output(out, source, height)
    labelled = [p.name for p in files.visible(source / "panomasks") if p.is_dir()]
    others = [n for n in lists.get("test", ()) if n not in labelled and (source / "imgs" / n).is_dir()]
    jobs = [(source, out, name, height) for name in (*labelled, *others)]
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        parts = pool.map(convert_video, *zip(*jobs, strict=True))
        parts = {part["video_id"]: part for part in files.track(parts, "convert", total=len(jobs), show=progress)}
    for split in lists:
        shutil.copyfile(source / f"{split}.txt", out / f"{split}.txt")
    files.write_json(out / "panoVIPSeg_categories.json", categories())
    truth = merge(parts, labelled)
    for split, names in lists.items():
        # the test json has the order of test.txt, the others that of the folder listing
        order = [n for n in names if n in parts] if split == "test" else [n for n in labelled if n in set(names)]
        files.write_json(out / f"panoptic_gt_VIPSeg_{split}.json", merge(parts, order))
    files.write_json(out / "panoptic_gt_VIPSeg.json", truth)
    shutil.rmtree(out / PARTS)
    return count(truth, lists, out)


def read_lists(source: pathlib.Path) -> dict[str, list[str]]:
    """Video names per split; checks that the folder is raw VIPSeg."""
    for name in ("imgs", "panomasks"):
        if not (source / name).is_dir():
            raise UserError(f"{source} has no folder {name}; expected VIPSeg as downloaded: give its root as --source")
    if not files.visible(source / "panomasks"):
        raise UserError(f"{source / 'panomasks'} is empty; expected one folder per video: check the download")
    lists = {s: source / f"{s}.txt" for s in ("train", "val", "test")}
    by_split = {split: files.read_lines(path) for split, path in lists.items() if path.exists()}
    if not by_split:
        raise UserError(f"{source} has no train.txt, val.txt or test.txt; expected the split lists: copy them in")
    return by_split


def open_output(out: pathlib.Path, source: pathlib.Path, height: int | None) -> None:
    """Make `out`, or take up an interrupted conversion of the same height."""
    state = out / PARTS / "settings.json"
    if out.exists() and any(out.iterdir()):
        if not state.exists():
            raise UserError(f"{out} is not empty; expected a new folder or an unfinished conversion: name another")
        before = json.loads(state.read_text())["height"]
        if before != height:
            raise UserError(f"{out} was begun with height {before}, not {height}; go on with {before} or remove it")
        return
    size = sum(f.stat().st_size for f in (source / "imgs").rglob("*.jpg"))
    files.require_space(out, int(size * 1.3) if height is None else size // 2)
    try:
        state.parent.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another output folder") from error
    files.write_json(state, {"height": height})


def convert_video(source: pathlib.Path, out: pathlib.Path, name: str, height: int | None) -> dict:
    """Convert one video and return its part of the truth json; done before, it is only read."""
    part_file = out / PARTS / f"{name}.json"
    if part_file.exists():
        return json.loads(part_file.read_text())
    colors = SegmentColors(vipseg.CLASSES, np.random.default_rng(zlib.crc32(name.encode())))
    images, annotations = [], []
    for image, mask in frames_of(source, name):
        jpeg, raw, values = resized(image, mask, height)
        write(out / "images" / name / image.name, jpeg)
        segments = []
        if mask is not None:
            rgb, segments = paint(values, colors)
            write(out / "panomasks" / name / mask.name, raw)
            write(out / "panomasksRGB" / name / mask.name, png(rgb))
        size = {"width": values.shape[1], "height": values.shape[0]}
        images.append({"id": image.stem, **size, "file_name": f"{image.stem}.png"})
        annotations.append({"image_id": image.stem, "file_name": f"{image.stem}.png", "segments_info": segments})
    part = {"video_id": name, "images": images, "annotations": annotations}
    files.write_json(part_file, part)
    return part


def frames_of(source: pathlib.Path, name: str) -> Iterator[tuple[pathlib.Path, pathlib.Path | None]]:
    """Image and mask of the frames that have both; images alone when the video has no masks at all."""
    masks = source / "panomasks" / name
    for image in files.visible(source / "imgs" / name, ".jpg"):
        mask = masks / f"{image.stem}.png"
        if mask.exists() or not masks.is_dir():
            yield image, mask if mask.exists() else None


def resized(image: pathlib.Path, mask: pathlib.Path | None, height: int | None) -> tuple[bytes, bytes, np.ndarray]:
    """JPEG bytes, PNG bytes and label values `[h, w]` (zeros without a mask) at the target height."""
    from PIL import Image

    jpeg, raw = image.read_bytes(), mask.read_bytes() if mask is not None else b""
    try:
        picture = Image.open(io.BytesIO(jpeg))
        size = picture.size if height is None else (int(height * picture.width / picture.height), height)
        if height is not None:
            jpeg = encoded(picture.resize(size, Image.Resampling.BILINEAR), "JPEG")
        if mask is None:
            return jpeg, raw, np.zeros(size[::-1], np.int32)
        labels = Image.open(io.BytesIO(raw))
        if height is not None:
            labels = labels.resize(size, Image.Resampling.NEAREST)
            raw = encoded(labels, "PNG")
        values = np.asarray(labels)
    except OSError as error:
        raise UserError(f"{image} or its mask cannot be read ({error}); fetch the video again") from error
    if values.ndim != 2:
        raise UserError(f"{mask} has {values.shape[-1]} channels; expected one: fetch the video again")
    return jpeg, raw, values.astype(np.int32)


def paint(values: np.ndarray, colors: SegmentColors) -> tuple[np.ndarray, list[dict]]:
    """RGB ids uint8 `[h, w, 3]` and segments_info, ordered by label value, of label values `[h, w]`."""
    present, areas = np.unique(values, return_counts=True)
    palette, segments = np.zeros((int(values.max()) + 1, 3), np.uint8), {}
    for value, area in zip(present.tolist(), areas.tolist(), strict=True):
        if value == 0:
            continue
        category = int(vipseg.class_of(value))
        if category >= len(vipseg.CLASSES.names):
            raise UserError(f"label value {value} has no class; expected 0..124 or class * 100 + i: mend the mask")
        is_thing = vipseg.CLASSES.is_thing[category]
        color = palette[value] = colors.thing(value, category) if is_thing else colors.stuff(category)
        # a wrong stuff code (200) wears its class colour and joins that segment
        row = {"id": color_id(color), "category_id": category, "iscrowd": 0, "area": 0}
        segments.setdefault(row["id"], row)["area"] += area
    return palette[values], list(segments.values())


def merge(parts: dict[str, dict], names: list[str]) -> dict:
    """Truth json of the named videos, in that order."""
    chosen = [parts[name] for name in names]
    return {
        "videos": [{key: part[key] for key in ("video_id", "images")} for part in chosen],
        "annotations": [{key: part[key] for key in ("video_id", "annotations")} for part in chosen],
        "categories": categories(),
    }


def categories() -> list[dict]:
    """The `categories` of the truth json: id, name, isthing and colour of the 124 classes."""
    return vipseg.CLASSES.rows()


def count(truth: dict, lists: dict, out: pathlib.Path) -> dict[str, int]:
    """Videos and frames converted, test videos included."""
    videos = list(truth["videos"])
    if "test" in lists:
        known = {video["video_id"] for video in videos}
        test = json.loads((out / "panoptic_gt_VIPSeg_test.json").read_text())["videos"]
        videos += [video for video in test if video["video_id"] not in known]
    return {"videos": len(videos), "frames": sum(len(video["images"]) for video in videos)}


def encoded(picture, kind: str) -> bytes:
    """File bytes of a PIL image; `kind` is PIL's name of the format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def png(rgb: np.ndarray) -> bytes:
    """PNG bytes of uint8 `[h, w, 3]` RGB."""
    import cv2

    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def write(path: pathlib.Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(data)
