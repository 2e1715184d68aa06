"""Mask2Former on a ViT-Adapter on a video: every frame by itself, in sliding windows (spec: vit_adapter 7)."""

import collections
import functools
from collections.abc import Iterable, Iterator, Mapping

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.config import WindowInference
from vps_jax.datasets.classes import ClassTable
from vps_jax.infer.fusion import fuse_frames
from vps_jax.infer.predictor import DECODED_AHEAD, Network, group_classes
from vps_jax.infer.sliding import Pass, PassScores, resize_steps, window_starts
from vps_jax.media.background import ahead
from vps_jax.media.video import Video, frames_of_one_size
from vps_jax.tasks import make_task
from vps_jax.types import FrameScores, Geometry, PanopticFrame, UserError


class WindowPredictor:
    """See `predictor.Predictor`. Things have no identities: all pixels of a thing class are one track."""

    kind = "probabilities"
    final_identities = True
    own_views = True  # its probabilities are averaged at the size of the frame

    def __init__(self, module, variables: Mapping, infer: WindowInference):
        """Compiled programs are shared by all instances with an equal module and task.

        Args:
          module: flax module with the methods `backbone_features` and `decode_features`.
          variables: its parameters and statistics.
          infer: sizes of the frames and windows.
        """
        self._infer = infer
        self._variables = jax.device_put(variables)
        self._run = _programs(module, infer.task)

    @staticmethod
    def check(module, infer: WindowInference) -> None:
        """Raises UserError if the windows are not of the only size that a BEiT takes."""
        backbone = getattr(module, "backbone", None)
        size = getattr(backbone, "image_size", None)
        if getattr(backbone, "beit", False) and tuple(size) != (infer.window_px,) * 2:
            raise UserError(f"window_px={infer.window_px}; expected {size[0]}, the size of the model's tables")

    @property
    def programs(self) -> dict[str, int]:
        """How often the model was compiled in this process, by shape of its windows."""
        return dict(self._run.counts)

    def network(self, original: tuple[int, int]) -> Network:
        """See `predictor.Network`: the scores of as many windows as are run at once."""
        side, sizes = self._infer.window_px, [steps[-1] for steps in resize_steps(original, self._infer)]
        frames = jax.ShapeDtypeStruct((self._infer.window_batch, side, side, 3), jnp.uint8)
        resized = " and ".join(f"{width}x{height}" for height, width in sizes)
        return Network(
            lambda variables, windows: (self._run.scores(variables, windows),),
            self._variables,
            {"frames": frames},
            {"scores": "[window, row, column, class]: sums of probabilities at stride 4"},
            f"RGB windows {self._infer.stride_px} pixels apart, of frames resized bilinearly as by OpenCV's "
            f"INTER_LINEAR to {resized} pixels; smaller ones are padded with 0",
        )

    def stream(self, video: Video) -> Iterator[FrameScores]:
        """Scores of the frames, one by one."""
        for frame in ahead(frames_of_one_size(video), DECODED_AHEAD):
            original = frame.image.shape[:2]
            passes = tuple(self.passes(frame.image))
            size = passes[0].size
            sizes = Geometry(tuple(-(-side // 4) * 4 for side in size), size, original)
            yield FrameScores(frame.stem, sizes, PassScores(passes, original))

    def fuse(self, frames: Iterable[FrameScores], classes: ClassTable) -> Iterator[PanopticFrame]:
        """Frames of the best class per pixel."""
        return fuse_frames(frames, classes)

    def passes(self, image: np.ndarray) -> Iterator[Pass]:
        """Run the model on an RGB uint8 frame `[h, w, 3]`: every scale, plain and mirrored."""
        for steps in resize_steps(image.shape[:2], self._infer):
            resized = image
            for height, width in steps:
                resized = cv2.resize(resized, (width, height), interpolation=cv2.INTER_LINEAR)
            yield self._pass(resized, mirrored=False)
            if self._infer.flip:
                yield self._pass(resized[:, ::-1], mirrored=True)

    def _pass(self, image: np.ndarray, *, mirrored: bool) -> Pass:
        size, window = image.shape[:2], self._infer.window_px
        rows, columns = (window_starts(side, window=window, stride=self._infer.stride_px) for side in size)
        short = [(0, max(0, window - side)) for side in size]
        image = np.pad(image, (*short, (0, 0)))
        windows = [image[y : y + window, x : x + window] for y in rows for x in columns]
        scores = self._scores(windows)
        scores = scores.reshape(len(rows), len(columns), *scores.shape[1:])
        return Pass(scores, size, (rows, columns), window, mirrored)

    def _scores(self, windows: list[np.ndarray]):
        """`[n, g, g, k]`, a fixed number of windows at a time, the last filled up with copies."""
        batch, done = self._infer.window_batch, []
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            filled = part + part[-1:] * (batch - len(part))
            done.append(self._run.scores(self._variables, np.stack(filled))[: len(part)])
        return jnp.concatenate(done)


class Programs:
    """The compiled model. `counts` says how often it was compiled, by shape."""

    def __init__(self, module, task: str):
        self.counts: collections.Counter[str] = collections.Counter()
        decode = make_task(task, num_classes=group_classes(module, None)).decode

        def scores(variables, frames):
            """Frames `[n, h, w, 3]` to class scores `[n, h / 4, w / 4, k]`."""
            self.counts[f"windows {'x'.join(map(str, frames.shape[:3]))}"] += 1  # runs when traced, not when called
            maps = module.apply(variables, frames[:, None], method="backbone_features")
            outputs = module.apply(variables, maps, method="decode_features")
            return jnp.moveaxis(decode(outputs).semantic[:, :, 0], 1, -1)  # of [n, k, 1, h4, w4]

        self.scores = jax.jit(scores)


_programs = functools.lru_cache(maxsize=8)(Programs)
