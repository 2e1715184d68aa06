"""DAVIS 2017: `JPEGImages/480p`, `Annotations/480p`, `ImageSets/2017` (spec: data_and_metrics 3)."""

import pathlib

import numpy as np

from tfds_builders import frames


class Davis(frames.FrameBuilder):
    """One record per frame; the label is 256 + object, 0 for background and void (palette value 255)."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The manual folder holds JPEGImages/, Annotations/ and ImageSets/ of DAVIS 2017."
    LABEL_CODE = "panoptic"

    def find_videos(self, root: pathlib.Path) -> dict[str, list[frames.Video]]:
        splits = {}
        for split in ("train", "val"):
            file = root / "ImageSets" / "2017" / f"{split}.txt"
            if file.exists():
                names = file.read_text().split()
                splits[split] = [
                    frames.paired(n, root / "JPEGImages" / "480p" / n, root / "Annotations" / "480p" / n) for n in names
                ]
        if not splits:
            raise ValueError(f"{root}: no ImageSets/2017/train.txt or val.txt; expected DAVIS 2017's layout")
        if not any(video.images for videos in splits.values() for video in videos):
            raise ValueError(f"{root}: no listed video has frames; expected JPEGImages/480p/<video>/*.jpg with masks")
        return splits

    def read_label(self, video: frames.Video, path: pathlib.Path) -> np.ndarray:
        from PIL import Image

        try:
            mask = np.asarray(Image.open(path))  # OpenCV would look the palette up
        except OSError as error:
            raise frames.BadFrame(f"{path}: unreadable PNG ({error}); fetch the file again") from error
        if mask.ndim != 2:
            raise frames.BadFrame(f"{path}: {mask.shape[-1]} channels; expected a palette PNG of object numbers")
        return np.where((mask > 0) & (mask < 255), 256 + mask.astype(np.int64), 0).astype(np.uint16)

    def instance_values(self) -> np.ndarray:
        values = np.arange(65536)
        return (values > 256) & (values < 511)

    def known_values(self) -> np.ndarray:
        return self.instance_values() | (np.arange(65536) == 0)


Builder = Davis
