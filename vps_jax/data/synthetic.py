"""Small synthetic data sets in the official on-disk layouts (spec: data_and_metrics 1, 2).

The pixels are whole-number arithmetic (scenes.py) and the same everywhere; the JPEG and PNG files are byte-identical
for one version of OpenCV, which the requirements pin.
"""

import pathlib
from collections.abc import Iterator

from vps_jax import taxonomy
from vps_jax.data import files, scenes

LENGTHS = (4, 6, 9, 12, 18, 30)
SIZES = ((108, 192), (120, 160))
STEM_STEP = 3  # VIPSeg is every third frame of VSPW, with VSPW's frame numbers
ID_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


def synthesize(
    out: str | pathlib.Path,
    *,
    seed: int = 0,
    train: int = 132,
    val: int = 24,
    test: int = 6,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    lengths: tuple[int, ...] = LENGTHS,
    progress: bool = True,
) -> dict[str, int]:
    """Write videos in VIPSeg's raw layout.

    `imgs/<video>/<stem>.jpg`, `panomasks/<video>/<stem>.png` (16 bit, not for test videos), `train.txt`, `val.txt`,
    `test.txt` and `label_num_dic_final.json`. Lengths and sizes take turns; one training video in sixteen has no
    instance.

    Args:
      out: new or empty folder.
      seed: another seed gives other videos.
      train, val, test: number of videos per split.
      sizes: `(height, width)` of the aspect classes.
      lengths: frames per video.
      progress: show a progress bar.

    Returns:
      Counts: videos and frames.

    Raises:
      UserError: `out` holds something already or cannot be written.
    """
    out = pathlib.Path(out)
    splits = {"train": train, "val": val, "test": test}
    planned = list(plan(splits, sizes, lengths))
    frames = 0
    with files.fresh_folder(out) as folder:
        names: dict[str, list[str]] = {split: [] for split in splits}
        for split, number, size, length in files.track(planned, "synthesize", show=progress):
            scene = make_scene(seed, number, split, size, length)
            names[split].append(write_vipseg_video(folder, scene, masks=split != "test"))
            frames += length
        write_vipseg_lists(folder, names)
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


def write_vipseg_video(folder: pathlib.Path, scene: scenes.Scene, *, masks: bool) -> str:
    """Write one video, return its name."""
    name, first = video_name(scene)
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


def write_vipseg_lists(folder: pathlib.Path, names: dict[str, list[str]]) -> None:
    """Split lists and the label json."""
    for split, videos in names.items():
        files.write_text(folder / f"{split}.txt", "".join(f"{v}\n" for v in videos))
    labels = {row["name"]: str(row["id"] + 1) for row in taxonomy.categories("vipseg")}
    files.write_json(folder / "label_num_dic_final.json", {"others": "0", **labels})
