"""Memory of a small VidEoMT on long videos, in processes of their own: 2,000 frames take what 200 take.

What waits for the end of a video stays in memory up to a few budgets. They are small here, so that the short video
exceeds them too.
"""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MORE = 1.05  # than the short video
KEPT_BYTES = 256 << 10  # of tokens, of owners of pixels, and of tracks that wait
SIZE = (90, 150)

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("how", ["whole", "online", "matched"])
def test_a_long_video_takes_the_memory_of_a_short_one(how):
    peak_mib(how, 200)  # compiling takes memory too; what is measured finds its programs in the cache
    short, long = (peak_mib(how, count) for count in (200, 2000))
    print(f"{how}: 200 frames {short:.0f} MiB, 2000 frames {long:.0f} MiB")
    assert long <= MORE * short


def peak_mib(how: str, count: int) -> float:
    """Most memory of a process that segments a video of so many frames."""
    command = [sys.executable, __file__, how, str(count)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1200, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["frames"] == count and found["segments"] > 0
    return found["mib"]


def segment(how: str, count: int) -> tuple[int, int]:
    """Frames, and pixels with an identity: a video of noise that moves, by one VidEoMT or by two that are matched."""
    import jax
    import numpy as np

    from vps_jax import models
    from vps_jax.config import Matching, QueryInference
    from vps_jax.datasets.classes import class_table
    from vps_jax.ensemble.averaging import Ensemble
    from vps_jax.ensemble.members import Member
    from vps_jax.infer import query_predictor
    from vps_jax.media.pending import PendingBlobs
    from vps_jax.media.video import Frame, Video
    from vps_jax.runs.experiment import set_up_jax

    set_up_jax()
    PendingBlobs.__init__.__defaults__ = (KEPT_BYTES,)
    base = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    frames = lambda: (Frame(f"{i:05d}", np.roll(base, 3 * i, axis=1), i / 5) for i in range(count))  # noqa: E731
    stems = tuple(f"{i:05d}" for i in range(count))
    video = Video("noise", count, 5.0, frames, lambda: SIZE, stems, source=pathlib.Path("noise.mp4"))
    classes = class_table("vipseg")
    model = models.build(
        {"name": "videomt", "size": "small", "semantic_groups": (("VIPSEG", 124),), "width": 24, "num_heads": 3,
         "trunk_blocks": 1, "query_blocks": 2, "queries": 6, "registers": 1, "image_size": 64, "init_values": 1.0,
         "dtype": "float32"}
    )  # fmt: skip
    variables = jax.tree.map(np.array, models.init(model, jax.random.key(0), (64, 64)))
    for head in (variables["params"]["heads"]["class_head"], variables["params"]["heads"]["mask_head"]["fc3"]):
        head["kernel"] *= 6  # queries that are sure, and sharp masks
    infer = QueryInference(
        short_side_px=90, max_side_px=160, score_threshold=0.1, overlap_threshold=0.05, online=how == "online"
    )

    class Predictor(query_predictor.QueryPredictor):
        def __init__(self, module, variables, infer):
            super().__init__(module, variables, infer, kept_bytes=KEPT_BYTES)

    def member(name):
        load = lambda: variables  # noqa: E731
        return Member(name, "probabilities", "log_scores", 1.0, Predictor, model, infer, classes, load, name)

    if how == "matched":
        members = [member("things"), member("other")]
        ensemble = Ensemble(members, members[0], matching=Matching("other"))
        for group in ensemble.groups:
            group.load()
        found = ensemble.panoptic_frames(video)
    else:
        predictor = Predictor(model, variables, infer)
        found = predictor.fuse(predictor.stream(video), classes)
    total, segments = 0, 0
    for frame in found:
        total, segments = total + 1, segments + int((frame.track_ids > 0).sum())
    return total, segments


def main() -> None:
    sys.path.insert(0, str(ROOT))
    frames, segments = segment(sys.argv[1], int(sys.argv[2]))
    status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would start at the parent's size
    mib = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"frames": frames, "segments": segments, "mib": mib}))


if __name__ == "__main__":
    main()
