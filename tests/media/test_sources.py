"""Reading videos, folders and VIPSeg roots, and what is said about damaged ones."""

import gc
import json
import os
import struct
import sys

import av
import cv2
import numpy as np
import pytest

from vps_jax.media import sources
from vps_jax.media.image_files import read_image
from vps_jax.media.movie_writer import MovieWriter
from vps_jax.types import UserError


def pictures(count, height=32, width=48):
    """Frames that differ in brightness, smooth enough to survive compression."""
    ramp = np.linspace(0, 100, width)[None, :, None] + np.zeros((height, 1, 3))
    return [np.uint8(ramp + 10 * i) for i in range(count)]


def write_jpegs(folder, stems, height=32, width=48):
    folder.mkdir(parents=True)
    for stem, image in zip(stems, pictures(len(stems), height, width), strict=True):
        cv2.imwrite(str(folder / f"{stem}.jpg"), image)
    return folder


def write_video(path, images, fps=6):
    with MovieWriter(path, fps=fps) as writer:
        for image in images:
            writer.write(image)
    return path


def test_a_written_video_is_read_back(tmp_path):
    images = pictures(7)
    (video,) = sources.open_videos(write_video(tmp_path / "clip.mp4", images, fps=12.5))
    assert (video.video_id, video.num_frames, video.fps) == ("clip", 7, 12.5)
    for _ in range(2):  # it can be decoded again
        frames = list(video.frames())
        assert [frame.stem for frame in frames] == [f"{i:08d}" for i in range(7)]
        for frame, image in zip(frames, images, strict=True):
            assert frame.image.shape == image.shape and frame.image.dtype == np.uint8
            assert np.abs(frame.image.astype(int) - image).mean() < 4


def test_decoded_frames_go_without_the_garbage_collector(tmp_path):
    """A frame that waits for the collector keeps the memory of its picture."""
    (video,) = sources.open_videos(write_video(tmp_path / "clip.mp4", pictures(20)))
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in video.frames()) == 20
        assert sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()) <= 3
    finally:
        gc.enable()


def test_colours_are_rgb(tmp_path):
    red = np.zeros((32, 48, 3), np.uint8)
    red[..., 0] = 255
    (video,) = sources.open_videos(write_video(tmp_path / "red.mp4", [red]))
    assert next(video.frames()).image[16, 24].tolist() == pytest.approx([255, 0, 0], abs=12)
    cv2.imwrite(str(tmp_path / "red.png"), red[..., ::-1])
    assert read_image(tmp_path / "red.png")[16, 24].tolist() == [255, 0, 0]


def test_a_phone_video_is_turned_upright(tmp_path):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32] = 255  # the left half is white
    path = write_video(tmp_path / "phone.mp4", [image])
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[matrix : matrix + 36])[:2] == (1 << 16, 0)
    clockwise = (0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *clockwise)
    path.write_bytes(data)
    (frame,) = sources.open_videos(path)[0].frames()
    assert frame.image.shape == (64, 32, 3)
    assert frame.image[:30].mean() > 250 and frame.image[34:].mean() < 5  # left has become top


def test_equal_frames_give_equal_bytes(tmp_path):
    ramp, images = np.linspace(0, 255, 160)[None, :, None] * np.linspace(0, 1, 96)[:, None, None], []
    for i in range(12):
        images.append(np.repeat(np.uint8(ramp), 3, axis=2))
        images[-1][3 * i : 3 * i + 30, 4 * i : 4 * i + 40] = (200, 30, 90)
    assert len({write_video(tmp_path / "v.mp4", images).read_bytes() for _ in range(25)}) == 1


def test_odd_sides_are_extended_by_one_pixel(tmp_path):
    write_video(tmp_path / "odd.mp4", pictures(2, 31, 47))
    with av.open(str(tmp_path / "odd.mp4")) as container:
        assert [(f.height, f.width) for f in container.decode(video=0)] == [(32, 48)] * 2


def test_a_video_that_fails_midway_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), MovieWriter(tmp_path / "x.mp4", fps=6) as writer:
        writer.write(pictures(1)[0])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_when_the_file_is_closed_leaves_no_file(tmp_path):
    (tmp_path / ".x.partial.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_video(tmp_path / "x.mp4", pictures(1))  # so short that all of it is written at the end
    assert not list(tmp_path.iterdir())


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    folder = write_jpegs(tmp_path / "walk", ["00000010", "00000007"])
    (folder / "notes.csv").write_text("not a frame")
    (folder / "data").mkdir()
    (video,) = sources.open_videos(folder)
    assert video.video_id == "walk" and video.num_frames == 2
    assert [frame.stem for frame in video.frames()] == ["00000007", "00000010"]


def test_a_raw_root_follows_the_split_list(tmp_path):
    for name in ("7_a-b_c", "12_x"):
        write_jpegs(tmp_path / "imgs" / name, ["00000003", "00000001"])
    (tmp_path / "val.txt").write_text("7_a-b_c\n12_x\n")
    videos = sources.open_videos(tmp_path, split="val")
    assert [(v.video_id, v.num_frames) for v in videos] == [("7_a-b_c", 2), ("12_x", 2)]
    assert [frame.stem for frame in videos[1].frames()] == ["00000001", "00000003"]


def test_a_converted_root_follows_its_json(tmp_path):
    write_jpegs(tmp_path / "images" / "v", ["00000001", "00000002", "00000003"])
    listing = {"videos": [{"video_id": "v", "images": [{"file_name": f"0000000{i}.png"} for i in (3, 1)]}]}
    (tmp_path / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(listing))
    (video,) = sources.open_videos(tmp_path)
    assert [frame.stem for frame in video.frames()] == ["00000003", "00000001"]


def test_a_vspw_root(tmp_path):
    write_jpegs(tmp_path / "data" / "7_a" / "origin", ["00000001", "00000002"])
    (tmp_path / "test.txt").write_text("7_a\n")
    (video,) = sources.open_videos(tmp_path, split="test")
    assert (video.video_id, video.num_frames, video.fps) == ("7_a", 2, 15.0)
    assert len(list(video.frames())) == 2


def refused(path, *words, split=None):
    """The one line that is said about a path when it is opened or decoded."""
    with pytest.raises(UserError) as caught:
        for video in sources.open_videos(path, split=split):
            list(video.frames())
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_wrong_paths_are_named(tmp_path):
    refused(tmp_path / "nothing.mp4", "nothing.mp4", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty", "is empty")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    refused(tmp_path / "text.mp4", "text.mp4", "cannot be read as a video")
    (tmp_path / "zero.mp4").write_bytes(b"")
    refused(tmp_path / "zero.mp4", "zero.mp4", "cannot be read as a video")
    refused(write_jpegs(tmp_path / "frames", ["1"]), "split 'val'", split="val")


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    refused(tmp_path / "sound.mp4", "sound.mp4", "no video stream")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_video_is_refused(tmp_path, keep):
    rng = np.random.default_rng(0)
    whole = write_video(tmp_path / "whole.mp4", [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(20)])
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * keep)])
    refused(tmp_path / "cut.mp4", "cut.mp4")


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".avi", "mpeg4"), (".webm", "libvpx")])
def test_a_video_that_ends_early_is_refused(tmp_path, suffix, codec):
    rng = np.random.default_rng(0)
    path = tmp_path / f"fast{suffix}"
    with av.open(str(path), "w", options={"movflags": "faststart"} if suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=6)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(20):
            image = rng.integers(0, 255, (64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    (video,) = sources.open_videos(path)
    assert len(list(video.frames())) == video.num_frames == 20
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    refused(path, path.name, "whole video")


@pytest.mark.parametrize(("suffix", "keep"), [(".jpg", 0.6), (".jpg", 0.99), (".png", 0.6), (".jpg", 0.0)])
def test_a_damaged_frame_is_refused_before_anything_is_decoded(tmp_path, suffix, keep):
    folder = tmp_path / "v"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}{suffix}"), noise)
    path = folder / f"2{suffix}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(UserError, match=f"2\\{suffix}"):
        sources.open_videos(folder)


def test_bytes_behind_the_end_of_an_image_do_no_harm(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), pictures(1)[0])
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"\0" * 100_000)
    assert read_image(tmp_path / "a.jpg").shape == (32, 48, 3)


def test_problems_of_a_root_are_named(tmp_path):
    write_jpegs(tmp_path / "imgs" / "a", ["1"])
    refused(tmp_path, "split 'val'", "val.txt", split="val")
    (tmp_path / "val.txt").write_text("a\nb\n")
    refused(tmp_path, "imgs/b", "missing", split="val")


def test_a_frame_of_the_json_that_is_not_there_is_named(tmp_path):
    write_jpegs(tmp_path / "images" / "v", ["00000001"])
    listing = {"videos": [{"video_id": "v", "images": [{"file_name": f"0000000{i}.png"} for i in (1, 2)]}]}
    (tmp_path / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(listing))
    refused(tmp_path, "frame 00000002 is missing")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_that_is_no_text_stops_no_other_video(tmp_path):
    for name in (b"good", b"bad\xff"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        cv2.imwrite(str(tmp_path / "x.png"), np.zeros((8, 8, 3), np.uint8))
        (folder / "0.png").write_bytes((tmp_path / "x.png").read_bytes())
    given = [str(tmp_path / os.fsdecode(name)) for name in (b"bad\xff", b"good")]
    videos, failed = sources.open_inputs(given, keep_going=True)
    assert [video.video_id for video in videos] == ["good"]
    assert [reason for _, reason in failed] == [r"bad\udcff: its name is not UTF-8; expected text, rename it"]
