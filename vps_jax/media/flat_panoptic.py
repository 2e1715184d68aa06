"""Cityscapes-VPS' result folder: the PNGs of all videos in one folder, and one list of images (spec: data_sets 8)."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from vps_jax.datasets.cityscapes_vps import frame_name
from vps_jax.datasets.classes import ClassTable
from vps_jax.datasets.colors import SegmentColors, color_id
from vps_jax.files import write_json
from vps_jax.media.frame_maps import png
from vps_jax.media.result_folders import Origin, VideoResult, encode_frame, list_rows, make_writable, writing
from vps_jax.media.run_state import RunState
from vps_jax.types import PanopticFrame


class FlatPanopticWriter:
    """Writes `pan_pred/<image>.png`, ids as R + 256 G + 65536 B, and `pred.json` with one annotation per image.

    The PNGs of a video are moved to their place, and listed, when the video is whole.
    """

    def __init__(self, folder: pathlib.Path, classes: ClassTable):
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: it cannot.
        """
        self.folder = pathlib.Path(folder)
        make_writable(self.folder / "pan_pred")
        self.state = RunState(self.folder)
        self._classes = classes

    def place(self, video_id: str) -> pathlib.Path:
        """The folder that holds a video's PNGs, among others."""
        return self.folder / "pan_pred"

    @contextlib.contextmanager
    def video(
        self, video_id: str, *, made_by: str = "", origin: Origin = None, order: Sequence[str] = (),
        number: int | str | None = None,
    ) -> Iterator[VideoResult]:  # fmt: skip
        """The place of one video's frames; see `result_folders.VipsegWriter.video`."""
        del number
        colors, rows = SegmentColors(self._classes), []
        partial = self.folder / f".{video_id.replace('/', '_')}.partial"

        def write(frame: PanopticFrame) -> None:
            image, segments = encode_frame(frame, colors, self._classes.official_ids)
            name = image_name(video_id, frame.stem)
            with writing(partial):
                (partial / f"{name}.png").write_bytes(png(image))
            rows.append({"image_id": name, "file_name": f"{name}.png", "segments_info": segments})

        try:
            shutil.rmtree(partial, ignore_errors=True)
            with writing(partial):
                partial.mkdir()
            yield VideoResult(write, lambda track, category: color_id(colors.thing(track, category)))
            with writing(self.place(video_id)):
                for row in rows:
                    (partial / row["file_name"]).replace(self.place(video_id) / row["file_name"])
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        with writing(self.folder / "pred.json"):
            self.state.finish(video_id, {"made_by": made_by, "origin": origin, "rows": rows})
            self.list_finished(order)

    def list_finished(self, order: Sequence[str]) -> None:
        """Bring `pred.json` up to date."""
        list_rows(self.state, order, lambda rows: write_json(self.folder / "pred.json", {"annotations": rows}))


def image_name(video_id: str, stem: str) -> str:
    """Name of an image in results, which begins with its video: Cityscapes-VPS' own, or one made of both."""
    name = frame_name(stem)
    return name if name.startswith(f"{video_id}_") else f"{video_id.replace('/', '_')}_{name}"
