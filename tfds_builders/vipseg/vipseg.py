"""VIPSeg as downloaded (`imgs/`, `panomasks/`) or as converted (`images/`, `panomasks/`) (spec: data_and_metrics 1)."""

import pathlib

import numpy as np

from tfds_builders import frames
from vps_jax import taxonomy


class Vipseg(frames.FrameBuilder):
    """One record per frame; the label is the raw panomask code.

    0 is void, 1..124 is stuff class + 1, larger values are (thing class + 1) * 100 + instance. Val holds a known wrong
    value 200 (stuff by its number, published as ceiling); it is kept as it is and reported as unknown.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The manual folder is VIPSeg as downloaded, or as `vps-jax data convert` leaves it."
    LABEL_CODE = "vipseg"

    def find_videos(self, root: pathlib.Path) -> dict[str, list[frames.Video]]:
        folders = [root / name for name in ("imgs", "images") if (root / name).is_dir()]
        if not folders:
            raise ValueError(f"{root}: no folder imgs (raw) or images (converted); expected VIPSeg's official layout")
        images, masks = folders[0], root / "panomasks"
        splits = {}
        for split, names in frames.split_lists(root).items():
            # test videos have no masks; converted folders have no test images unless somebody put them there
            names = [n for n in names if (images / n).is_dir()] if split == "test" else names
            splits[split] = [frames.paired(n, images / n, None if split == "test" else masks / n) for n in names]
        if not any(video.images for videos in splits.values() for video in videos):
            raise ValueError(f"{root}: no listed video has frames; expected {images.name}/<video>/*.jpg with panomasks")
        return splits

    def instance_values(self) -> np.ndarray:
        return value_classes() == 2

    def known_values(self) -> np.ndarray:
        return value_classes() > 0


Builder = Vipseg


def value_classes() -> np.ndarray:
    """int `[65536]` per label value: 0 unknown, 1 void or stuff, 2 an instance of a thing class."""
    table = taxonomy.class_table("vipseg")
    kinds = np.zeros(65536, np.int32)
    kinds[0] = 1
    for c, thing in enumerate(table.is_thing):
        if thing:
            kinds[(c + 1) * 100 : (c + 2) * 100] = 2
    kinds[[c + 1 for c in table.stuff_ids]] = 1
    return kinds
