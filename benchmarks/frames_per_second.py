"""Frames a second of `vps-jax predict` with overlay video, the time of its parts, and the ratio to an older checkout.

  python benchmarks/frames_per_second.py horse.mp4 --checkpoint runs/demo
  python benchmarks/frames_per_second.py horse.mp4 --checkpoint runs/demo --before ../older_checkout

Parts run one after the other, alone, over all frames: decoding; decoding, network and stitching; fusion to panoptic
frames of the video's size; PNGs with their records; drawing; encoding. The whole runs them side by side, in a process
of each checkout; the two take turns. Programs are compiled before anything counts. Seconds on the clock and of CPU in
all threads: of the parts once, of the whole the median of the rounds. An older checkout must be able to read the
checkpoint.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

from checkouts import Checkout, seconds

FOLDER = pathlib.Path(__file__).resolve().parents[1]


# ---- the process of one checkout: each line is the word parts or whole, answered by a line of JSON


def serve(video: str, checkpoint: str) -> None:
    import vps_jax
    from vps_jax.infer.predict import predict
    from vps_jax.runs.segmenter import open_video

    segmenter = vps_jax.load(checkpoint)
    predictor, classes = segmenter.predictor, segmenter.classes

    def whole() -> None:
        with tempfile.TemporaryDirectory() as out:
            predict([video], predictor, classes, out, progress=False)

    whole()
    for line in sys.stdin:
        found = part_seconds(open_video(video), predictor, classes) if line.strip() == "parts" else seconds(whole)
        print(json.dumps(found), flush=True)


def part_seconds(video, predictor, classes) -> dict:
    """Number of frames, and (CPU, clock) seconds of each part over all of them, by its name."""
    from vps_jax.media import result_folders
    from vps_jax.media.movie_writer import MovieWriter
    from vps_jax.viz.overlay import overlay

    made = {}

    def keep(name: str, items) -> None:
        made[name] = list(items)

    def write_results(folder: str) -> None:
        writer = result_folders.make_writer(folder, "vipseg", classes)
        with writer.video("video") as result:
            for frame in made["fusion"]:
                result.write(frame)

    def encode(folder: str) -> None:
        with MovieWriter(pathlib.Path(folder, "overlay.mp4"), fps=video.fps) as movie:
            for picture in made["drawing"]:
                movie.write(picture)

    def draw():
        pairs = zip(made["decoding"], made["fusion"], strict=True)
        return (overlay(source.image, frame, classes) for source, frame in pairs)

    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "decoding": lambda: keep("decoding", video.frames()),
            "decoding, network, stitching": lambda: keep("scores", predictor.stream(video)),
            "fusion": lambda: keep("fusion", predictor.fuse(iter(made["scores"]), classes)),
            "PNGs and records": lambda: write_results(folder),
            "drawing": lambda: keep("drawing", draw()),
            "encoding": lambda: encode(folder),
        }
        times = {name: seconds(part) for name, part in parts.items()}
    return {"frames": len(made["decoding"]), **times}


# ---- the process that compares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--before", type=pathlib.Path, help="an older checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    video, checkpoint = (str(pathlib.Path(path).resolve()) for path in (args.video, args.checkpoint))
    if args.serve:
        serve(video, checkpoint)
        return
    folders = {"new": FOLDER} | ({"before": args.before.resolve()} if args.before else {})
    checkouts = {
        name: Checkout(folder, __file__, video, "--checkpoint", checkpoint) for name, folder in folders.items()
    }
    parts = checkouts["new"].ask("parts")
    frames = parts.pop("frames")
    rounds = [{name: checkout.ask("whole") for name, checkout in checkouts.items()} for _ in range(args.rounds)]
    wholes = {name: [statistics.median(one[name][i] for one in rounds) for i in (0, 1)] for name in checkouts}
    for name, (cpu, clock) in (parts | {f"whole, {name}": times for name, times in wholes.items()}).items():
        print(f"{name:30s} {1000 * clock / frames:7.1f} ms a frame, CPU {1000 * cpu / frames:7.1f} ms")
    print(f"{frames / wholes['new'][1]:.1f} frames a second; {frames} frames, median of {args.rounds} rounds")
    if args.before:
        print(f"{wholes['before'][1] / wholes['new'][1]:.2f} times as many as before")


if __name__ == "__main__":
    main()
