"""Members one after another in processes of their own: killed and run again, and how much memory that takes."""

import filecmp
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MEMBERS = ("vps", "vss", "image")
MORE = 1.1  # than the largest member alone

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> pathlib.Path:
    """A folder with a video and three checkpoints of 220 to 400 MB."""
    folder = tmp_path_factory.mktemp("scene")
    finish(start(folder, "make"))
    return folder


def start(folder: pathlib.Path, *what: str) -> subprocess.Popen:
    command = [sys.executable, __file__, str(folder), *what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def finish(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


def assert_same(a: pathlib.Path, b: pathlib.Path) -> None:
    names, others = (sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in (a, b))
    assert names == others and len(names) == 9  # eight frames and pred.json
    assert filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def test_killed_between_members_and_memory_of_one(scene):
    runs = (*MEMBERS, "together", "in_turn")
    for what in runs:  # compiling takes memory too; what is measured finds its programs in the cache
        finish(start(scene, what, f"{what}_first"))
    peaks = {what: finish(start(scene, what, f"{what}_out"))["mib"] for what in runs}
    print({what: round(mib) for what, mib in peaks.items()}, "MiB")
    assert_same(scene / "together_out", scene / "in_turn_out")
    assert peaks["in_turn"] <= MORE * max(peaks[name] for name in MEMBERS)
    assert peaks["in_turn"] < peaks["together"]

    process, kept = start(scene, "in_turn", "killed"), scene / "killed" / ".scores"
    while not list(kept.glob("*/*.scores")):  # the first member is through
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (scene / "killed" / "pred.json").exists()
    (done,) = kept.glob("*/*.scores")
    written = done.stat().st_mtime_ns
    process = start(scene, "in_turn", "killed")
    while len(list(kept.glob("*/*.scores"))) < 2 and process.poll() is None:
        assert done.stat().st_mtime_ns == written  # not made again
        time.sleep(0.02)
    finish(process)
    assert_same(scene / "killed", scene / "together_out")


def make(folder: pathlib.Path) -> None:
    """Random weights in the sizes of published models' smaller sisters, and a video of noise."""
    import cv2
    import jax
    import numpy as np

    from configs import common, vspw_vit_adapter
    from vps_jax import convert
    from vps_jax.train.checkpoint import save_converted

    tarvis = common.base().to_dict()
    tarvis["model"] |= {
        "backbone": "swin_small", "hidden_dim": 128, "neck_layers": 2, "neck_ffn_dim": 256, "decoder_layers": 3,
        "decoder_ffn_dim": 256, "drop_path_rate": 0.0, "dtype": "float32",
    }  # fmt: skip
    tarvis["infer"] |= {"clip_frames": 4, "overlap_frames": 2, "short_side_px": 64, "max_side_px": 128}
    both = {**tarvis, "model": {**tarvis["model"], "semantic_groups": (("VIPSEG", 124), ("VIPSEG_VSS", 124))}}
    image = vspw_vit_adapter.get_config().to_dict()
    image["model"] |= {
        "size": "beit_tiny_96", "width": 768, "trunk_heads": 12, "groups": (3, 3, 3, 3), "drop_path_rate": 0.0,
        "dtype": "float32",
    }  # fmt: skip
    image["infer"] |= {"short_side_px": 96, "max_side_px": 192, "window_px": 96, "stride_px": 64}
    rng = np.random.default_rng(0)
    for name, config in {"vps": tarvis, "vss": both, "image": image}.items():
        shapes = convert.expected(config["model"])
        save_converted(
            folder / name, config, jax.tree.map(lambda x: rng.normal(0.1, 0.1, x.shape).astype(x.dtype), shapes)
        )
    (folder / "video").mkdir()
    small = rng.integers(0, 256, (5, 7, 3), np.uint8)
    for i in range(8):
        frame = cv2.resize(np.roll(small, i // 2, axis=1), (96, 64), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "video" / f"{i:05d}.png"), frame)


def predict(folder: pathlib.Path, what: str, out: pathlib.Path) -> None:
    """The video through one checkpoint, or through all three `together` or `in_turn`."""
    from configs import ensemble
    from vps_jax.runs import ensemble_experiment, experiment

    video = [folder / "video"]
    if what in MEMBERS:
        experiment.predict_with_checkpoint(video, folder / what, out, split=None, overlay=False)
        return
    config = ensemble.get_config().to_dict() | {"run": what}
    for name, member in config["members"].items():
        member["checkpoint"] = str(folder / name)
    ensemble_experiment.predict(video, config, out, overlay=False)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
    if what == "make":
        make(folder)
    else:
        predict(folder, what, folder / sys.argv[3])
    status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would start at the parent's size
    print(json.dumps({"mib": int(status.split("VmHWM:")[1].split()[0]) / 1024}))


if __name__ == "__main__":
    main()
