"""Results as one PNG per frame, `<video>/<stem>.png`: VSPW's class maps, DAVIS' object maps, KITTI-STEP's maps."""

import contextlib
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from PIL import Image

from vps_jax.datasets.classes import ClassTable
from vps_jax.media.result_folders import Origin, VideoResult, make_writable, video_folder, writing
from vps_jax.media.run_state import RunState
from vps_jax.types import PanopticFrame, UserError

VOID = 255
MOST_OBJECTS = 254  # of a palette map: 0 is background, 255 void


class FrameMapWriter:
    """Writes a PNG per frame; a video's folder appears when the video is whole."""

    def __init__(self, folder: pathlib.Path, encode: Callable[[PanopticFrame], bytes]):
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: it cannot.
        """
        self.folder = pathlib.Path(folder)
        make_writable(self.folder)
        self.state = RunState(self.folder)
        self._encode = encode

    def place(self, video_id: str) -> pathlib.Path:
        """The folder of a video's PNGs."""
        return self.folder / video_id

    @contextlib.contextmanager
    def video(
        self, video_id: str, *, made_by: str = "", origin: Origin = None, order: Sequence[str] = (),
        number: int | str | None = None,
    ) -> Iterator[VideoResult]:  # fmt: skip
        """The place of one video's frames; see `result_folders.VipsegWriter.video`."""
        del order, number  # there is no list
        with video_folder(self.place(video_id)) as folder:

            def write(frame: PanopticFrame) -> None:
                data = self._encode(frame)
                with writing(folder):
                    (folder / f"{frame.stem}.png").write_bytes(data)

            yield VideoResult(write, lambda track, category: track)
        with writing(self.folder):
            self.state.finish(video_id, {"made_by": made_by, "origin": origin})

    def list_finished(self, order: Sequence[str]) -> None:
        """There is no list."""


def vspw_writer(folder: pathlib.Path, classes: ClassTable) -> FrameMapWriter:
    """8-bit maps of classes, whatever their list (spec: metrics 4.3)."""
    del classes
    return FrameMapWriter(folder, lambda frame: png(frame.categories))


def davis_writer(folder: pathlib.Path, classes: ClassTable) -> FrameMapWriter:
    """Palette maps of objects, numbered by track; 0 is background (spec: data_sets 11)."""
    del classes
    return FrameMapWriter(folder, encode_objects)


def kitti_step_writer(folder: pathlib.Path, classes: ClassTable) -> FrameMapWriter:
    """RGB maps: class, then the track's number in two bytes; class 255 is void (spec: data_sets 7)."""
    del classes
    return FrameMapWriter(folder, encode_step)


def encode_objects(frame: PanopticFrame) -> bytes:
    """A PNG with a palette whose indices are track ids.

    Raises:
      UserError: there are more than a palette holds.
    """
    most = int(frame.track_ids.max())
    if most > MOST_OBJECTS:
        raise UserError(f"frame {frame.stem}: track {most}; a DAVIS map holds {MOST_OBJECTS}, choose --format ytvis")
    picture, data = Image.fromarray(frame.track_ids.astype(np.uint8)), io.BytesIO()
    picture.putpalette(palette().ravel().tolist())
    picture.save(data, "PNG")
    return data.getvalue()


def palette() -> np.ndarray:
    """DAVIS' and PASCAL VOC's colours uint8 `[256, 3]`: the bits of an index, dealt to red, green and blue in turn."""
    index, colors = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((index >> (3 * bit + channel)) & 1).astype(np.uint8) << (7 - bit)
    return colors


def encode_step(frame: PanopticFrame) -> bytes:
    """A PNG of (class, track // 256, track % 256)."""
    tracks = frame.track_ids % (1 << 16)
    return png(np.stack([frame.categories, tracks // 256, tracks % 256], axis=-1).astype(np.uint8))


def png(image: np.ndarray) -> bytes:
    """The PNG of uint8 `[h, w]`, or of RGB `[h, w, 3]`."""
    image = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
