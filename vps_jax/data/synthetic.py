"""Small synthetic data sets in the official on-disk layouts (spec: metrics 1, 2).

The pixels are whole-number arithmetic (scenes.py) and the same everywhere; the JPEG and PNG files are byte-identical
for one version of OpenCV, which the requirements pin.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from vps_jax import datasets, files
from vps_jax.data import scenes, synthetic_images, synthetic_videos
from vps_jax.datasets import vipseg
from vps_jax.types import UserError

LENGTHS = (4, 6, 9, 12, 18, 30)
SIZES = ((108, 192), (120, 160))
STEM_STEP = 3  # VIPSeg is every third frame of VSPW, with VSPW's frame numbers
# VSPW's real masks hold values that mean nothing; so do ours, in a corner of every eighth frame
STRAYS = (252, 253)
# official ids and names of the COCO categories that stand for our classes
COCO_CATEGORIES = {
    60: (1, "person"), 48: (3, "car"), 46: (28, "umbrella"), 76: (33, "suitcase"), 74: (37, "sports ball"),
    43: (38, "kite"), 18: (149, "road"), 16: (154, "sand"), 39: (178, "water-other"), 28: (187, "sky-other-merged"),
    15: (193, "grass-merged"), 21: (197, "building-other-merged"),
}  # fmt: skip
ID_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


def synthesize(
    out: str | pathlib.Path,
    *,
    layout: str = "vipseg",
    seed: int = 0,
    train: int = 132,
    val: int = 24,
    test: int = 6,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    lengths: tuple[int, ...] = LENGTHS,
    progress: bool = True,
) -> dict[str, int]:
    """Write videos in the official layout of a data set; the scenes are the same for all layouts.

    Lengths and sizes take turns; one training video in sixteen has no instance.

    Args:
      out: new or empty folder.
      layout: one of `LAYOUTS`: the data sets that `vps_jax.datasets` knows; only some have a test split.
      seed: another seed gives other videos.
      train, val, test: number of videos per split.
      sizes: `(height, width)` of the aspect classes.
      lengths: frames per video.
      progress: show a progress bar.

    Returns:
      Counts: videos and frames.

    Raises:
      UserError: the layout is unknown, `out` holds something already or cannot be written.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is unknown; expected one of {', '.join(LAYOUTS)}")
    write_video, write_lists = LAYOUTS[layout]
    splits = {"train": train, "val": val, "test": test}
    if layout not in WITH_TEST:
        del splits["test"]
    planned = list(plan(splits, sizes, lengths))
    with files.fresh_folder(pathlib.Path(out)) as folder:
        written: dict[str, list] = {split: [] for split in splits}
        for split, number, size, length in files.track(planned, "synthesize", show=progress):
            scene = make_scene(seed, number, split, size, length)
            written[split].append(write_video(folder, scene, split))
        if write_lists is not None:
            write_lists(folder, written)
        spec = datasets.dataset(layout)
        frames = sum(len(video.images) for split in spec.splits(folder) for video in spec.videos(folder, split))
    return {"videos": len(planned), "frames": frames}


def plan(splits: dict[str, int], sizes, lengths) -> Iterator[tuple[str, int, tuple[int, int], int]]:
    """`(split, video number, (height, width), frames)` of all videos."""
    first = 0
    for split, count in splits.items():
        for i in range(count):
            # the sizes shift by one every round, so that each length meets each size
            yield split, first + i, sizes[(i + i // len(lengths)) % len(sizes)], lengths[i % len(lengths)]
        first += 100_000  # a split's videos do not depend on how many the others have


def make_scene(seed: int, number: int, split: str, size: tuple[int, int], length: int) -> scenes.Scene:
    """Scene of one planned video."""
    with_things = split != "train" or number % 16 != 15
    return scenes.make_scene(seed, number, height=size[0], width=size[1], num_frames=length, with_things=with_things)


def video_name(scene: scenes.Scene) -> tuple[str, int]:
    """`<number>_<eleven letters>` like the real ones, and the number of the first frame."""
    draws = scenes.Draws(*scene.key, 0)
    letters = "".join(ID_LETTERS[draws.integer(0, 63)] for _ in range(11))
    return f"{scene.key[1]}_{letters}", draws.integer(0, 300)


def write_vipseg_video(folder: pathlib.Path, scene: scenes.Scene, split: str) -> str:
    """Write `imgs/<video>` and, except for test, 16-bit `panomasks/<video>`; return the video's name."""
    name, first = video_name(scene)
    masks = split != "test"
    (folder / "imgs" / name).mkdir(parents=True)
    if masks:
        (folder / "panomasks" / name).mkdir(parents=True)
    for frame in range(scene.num_frames):
        image, mask = scenes.render(scene, frame * scenes.TICKS_PER_FRAME)
        stem = f"{first + frame * STEM_STEP:08d}"
        files.write_image(folder / "imgs" / name / f"{stem}.jpg", image)
        if masks:
            files.write_image(folder / "panomasks" / name / f"{stem}.png", mask)
    return name


def write_official_lists(folder: pathlib.Path, names: dict[str, list[str]]) -> None:
    """Split lists and the label json of VIPSeg and VSPW."""
    for split, videos in names.items():
        files.write_text(folder / f"{split}.txt", "".join(f"{v}\n" for v in videos))
    labels = {row["name"]: str(row["id"] + 1) for row in vipseg.CLASSES.rows()}
    files.write_json(folder / "label_num_dic_final.json", {"others": "0", **labels})


def write_vspw_video(folder: pathlib.Path, scene: scenes.Scene, split: str) -> str:
    """Write `data/<video>/origin` and, except for test, 8-bit `data/<video>/mask`; return the video's name."""
    name, first = video_name(scene)
    root = folder / "data" / name
    (root / "origin").mkdir(parents=True)
    if split != "test":
        (root / "mask").mkdir()
    for tick in range(scene.num_frames * scenes.TICKS_PER_FRAME):
        image, values = scenes.render(scene, tick)
        files.write_image(root / "origin" / f"{first + tick:08d}.jpg", image)
        if split == "test":
            continue
        mask = (1 + vipseg.class_of(values)).astype(np.uint8)
        mask[(mask == 0) & (np.arange(mask.shape[1]) % 2 == 0)] = 255  # both kinds of void
        if tick % 8 == 0:
            mask[:2, :3] = STRAYS[tick // 8 % 2]
        files.write_image(root / "mask" / f"{first + tick:08d}.png", mask)
    return name


def write_coco_image(folder: pathlib.Path, scene: scenes.Scene, split: str) -> tuple[dict, dict]:
    """Write the middle frame of a scene and its RGB ids; return its rows of the json's images and annotations."""
    image, values = scenes.render(scene, scene.num_frames * scenes.TICKS_PER_FRAME // 2)
    number = scene.key[1] + 1
    stem, name = f"{number:012d}", f"{split}2017"
    for parent in (folder / name, folder / "annotations" / f"panoptic_{name}"):
        parent.mkdir(parents=True, exist_ok=True)
    ids, segments = np.zeros(values.shape, np.int32), []
    for i, value in enumerate(v for v in np.unique(values).tolist() if v):
        here = values == value
        ids[here] = 70_001 * (i + 1)
        category = int(vipseg.class_of(value))
        rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
        corner = int(columns[0]), int(rows[0])
        box = [*corner, int(columns[-1]) + 1 - corner[0], int(rows[-1]) + 1 - corner[1]]
        row = {"id": 70_001 * (i + 1), "category_id": COCO_CATEGORIES[category][0], "iscrowd": 0}
        segments.append({**row, "area": int(here.sum()), "bbox": box})
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    files.write_image(folder / name / f"{stem}.jpg", image)
    files.write_image(folder / "annotations" / f"panoptic_{name}" / f"{stem}.png", rgb)
    size = {"width": scene.width, "height": scene.height}
    annotation = {"image_id": number, "file_name": f"{stem}.png", "segments_info": segments}
    return {"id": number, "file_name": f"{stem}.jpg", **size}, annotation


def write_coco_jsons(folder: pathlib.Path, rows: dict[str, list[tuple[dict, dict]]]) -> None:
    """One json per split, categories in the order of their ids."""
    table = vipseg.CLASSES
    official = sorted((number, name, c) for c, (number, name) in COCO_CATEGORIES.items())
    categories = [{"id": i, "name": name, "isthing": int(table.is_thing[c])} for i, name, c in official]
    for split, pairs in rows.items():
        content = {"images": [p[0] for p in pairs], "annotations": [p[1] for p in pairs], "categories": categories}
        (folder / "annotations").mkdir(exist_ok=True)
        files.write_json(folder / "annotations" / f"panoptic_{split}2017.json", content)


def write_davis_video(folder: pathlib.Path, scene: scenes.Scene, split: str) -> str:
    """Write `JPEGImages/480p/<video>` and palette masks in `Annotations/480p/<video>`; return the video's name."""
    name, _ = video_name(scene)
    images, masks = folder / "JPEGImages" / "480p" / name, folder / "Annotations" / "480p" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    objects = np.zeros(65536, np.uint8)
    for i, thing in enumerate(scene.things):
        objects[thing.value] = 1 + i
    for tick in range(scene.num_frames * scenes.TICKS_PER_FRAME):
        image, values = scenes.render(scene, tick)
        files.write_image(images / f"{tick:05d}.jpg", image)
        files.write_palette_png(masks / f"{tick:05d}.png", objects[values])
    return name


def write_davis_lists(folder: pathlib.Path, names: dict[str, list[str]]) -> None:
    """`ImageSets/2017/<split>.txt`."""
    (folder / "ImageSets" / "2017").mkdir(parents=True)
    for split, videos in names.items():
        files.write_text(folder / "ImageSets" / "2017" / f"{split}.txt", "".join(f"{v}\n" for v in videos))


# what writes a video (or image) and what writes the lists of a layout
LAYOUTS = {
    "vipseg": (write_vipseg_video, write_official_lists),
    "vspw": (write_vspw_video, write_official_lists),
    "coco_panoptic": (write_coco_image, write_coco_jsons),
    "davis": (write_davis_video, write_davis_lists),
    "ade20k_panoptic": (synthetic_images.write_ade20k, None),
    "cityscapes_panoptic": (synthetic_images.write_cityscapes, None),
    "mapillary_vistas": (synthetic_images.write_mapillary, synthetic_images.write_mapillary_jsons),
    "youtube_vis_2021": (synthetic_videos.write_youtube_vis, synthetic_videos.write_youtube_vis_jsons),
    "youtube_vis_2019": (synthetic_videos.write_youtube_vis_2019, synthetic_videos.write_youtube_vis_2019_jsons),
    "ovis": (synthetic_videos.write_ovis, synthetic_videos.write_ovis_jsons),
    "kitti_step": (synthetic_videos.write_kitti, None),
    "cityscapes_vps": (synthetic_videos.write_cityscapes_vps, None),
    "burst": (synthetic_videos.write_burst, synthetic_videos.write_burst_jsons),
}
WITH_TEST = ("vipseg", "vspw", "kitti_step", "cityscapes_vps")  # whose test split has images of its own here
