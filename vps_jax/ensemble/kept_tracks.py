"""Tracks of an ensemble member on the common grid: the bytes of a frame, and a file of them beside its kept scores."""

import io
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np

from vps_jax.ensemble.kept_scores import as_kept, halves, joined, read_blobs
from vps_jax.infer.score_maps import to_grid
from vps_jax.types import ClosedTrack, FrameScores, FrameTracks, Geometry

SUFFIX = ".tracks"
PADDED = 8  # the number of masks that are resized together is a multiple of it, so that few programs are compiled


def track_path(folder: pathlib.Path, video_id: str) -> pathlib.Path:
    """File of a video in the folder of a member."""
    return folder / f"{video_id}{SUFFIX}"


def on_grid(frame: FrameScores, sizes: Geometry) -> FrameTracks:
    """The tracks of a frame as they are kept: mask logits float16 `[n, h4, w4]` on the grid of `sizes`."""
    masks, count = frame.tracks.masks, len(frame.tracks.ids)
    if not count:
        masks = np.zeros((0, *(side // 4 for side in sizes.padded)), np.float32)
    elif frame.sizes != sizes:
        rows = np.arange(-(-count // PADDED) * PADDED, dtype=np.int32) % count
        masks = np.asarray(to_grid(masks, rows, frame.sizes, sizes))[:count]
    return frame.tracks._replace(ids=np.asarray(frame.tracks.ids, np.int32), masks=as_kept(masks))


def pack(tracks: FrameTracks) -> bytes:
    """Tracks of one frame, masks in float16, as compressed bytes."""
    logits = [np.asarray(track.class_logits, np.float32) for track in tracks.closed]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=tracks.ids,
        shape=tracks.masks.shape,
        masks=halves(tracks.masks),
        closed=np.array([track.track_id for track in tracks.closed], np.int32),
        logits=np.stack(logits) if logits else np.zeros((0, 0), np.float32),
    )
    return zlib.compress(buffer.getvalue(), 1)


def unpack(blob: bytes) -> FrameTracks:
    """The tracks of `pack`."""
    with np.load(io.BytesIO(zlib.decompress(blob)), allow_pickle=False) as stored:
        masks = joined(stored["masks"], tuple(stored["shape"]))
        closed = [ClosedTrack(int(i), row) for i, row in zip(stored["closed"], stored["logits"], strict=True)]
        return FrameTracks(stored["ids"], masks, closed)


def read_tracks(path: pathlib.Path) -> Iterator[tuple[str, FrameTracks]]:
    """Names and tracks of the frames of a file, one frame at a time."""
    for stem, blob in read_blobs(path):
        yield stem, unpack(blob)
