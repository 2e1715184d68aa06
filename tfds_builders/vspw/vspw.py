"""VSPW, native or 480p: `data/<video>/origin`, `data/<video>/mask` (spec: data_and_metrics 2)."""

import pathlib

import numpy as np

from tfds_builders import frames


class Vspw(frames.FrameBuilder):
    """One record per frame; the label is the mask as it is: 1..124 class + 1, 0 and 255 void.

    Real files hold stray values too (252, 253): they stay, are reported as unknown and ignored in training.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The manual folder is VSPW or VSPW_480p as downloaded."
    VOID = (0, 255)
    LABEL_CODE = "vspw"

    def find_videos(self, root: pathlib.Path) -> dict[str, list[frames.Video]]:
        if not (root / "data").is_dir():
            raise ValueError(f"{root}: no folder data; expected VSPW's official layout data/<video>/origin/*.jpg")
        splits = {}
        for split, names in frames.split_lists(root).items():
            folders = [root / "data" / n for n in names]
            folders = [f for f in folders if f.is_dir()] if split == "test" else folders
            splits[split] = [
                frames.paired(f.name, f / "origin", None if split == "test" else f / "mask") for f in folders
            ]
        if not any(video.images for videos in splits.values() for video in videos):
            raise ValueError(f"{root}: no listed video has frames; expected data/<video>/origin/*.jpg with masks")
        return splits

    def instance_values(self) -> np.ndarray:
        return np.zeros(65536, bool)

    def known_values(self) -> np.ndarray:
        known = np.arange(65536) <= 124
        known[255] = True
        return known


Builder = Vspw
