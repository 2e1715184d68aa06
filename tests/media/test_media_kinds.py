"""Every kind of video that users bring: what is read of it, and the one line about what is not."""

import functools
import http.server
import os
import pathlib
import struct
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import (
    FPS,
    HEIGHT,
    IDENTITY,
    WIDTH,
    brightness,
    patched,
    picture,
    read,
    refused,
    with_matrix,
    write_container,
    write_images,
    write_movie,
)
from PIL import Image

from vps_jax.media import streams, video_files
from vps_jax.media.movie_writer import MovieWriter
from vps_jax.media.selection import Selection, seconds
from vps_jax.media.sources import open_sources
from vps_jax.types import UserError

# ---- video files


def test_a_last_frame_that_is_held_for_seconds_is_a_whole_video(tmp_path):
    def hold(packets):
        packets[-1].duration = packets[-1].duration * 18
        return packets

    _, frames = read(write_container(tmp_path / "held.mkv", packets=hold))
    assert brightness(frames) == list(range(12))


def test_frames_that_were_dropped_leave_gaps_in_time(tmp_path):
    def gap(packets):
        for packet in packets[3:]:
            packet.pts, packet.dts = packet.pts + 2, packet.dts + 2
        return packets

    video, frames = read(write_container(tmp_path / "dropped.avi", codec="mpeg4", packets=gap))
    assert len(frames) == 12
    assert [round(t * FPS) for t in video.times] == [0, 1, 2, *range(5, 14)]


def test_a_tag_that_is_no_duration_is_not_read(tmp_path):
    path = write_container(tmp_path / "badtag.mkv")
    patched(path, b"DURATION", len(b"DURATION") + 3, b"2 s,xx:abcd")
    assert len(read(path)[1]) == 12


def test_damaged_frames_are_said_and_refused_when_strict(tmp_path):
    def damage(packets):
        data = bytearray(bytes(packets[7]))
        data[len(data) // 2 : len(data) // 2 + 20] = bytes(20)
        broken = av.Packet(bytes(data))
        broken.stream, broken.pts, broken.dts = packets[7].stream, packets[7].pts, packets[7].dts
        broken.time_base, broken.duration = packets[7].time_base, packets[7].duration
        return [*packets[:7], broken, *packets[8:]]

    rng = np.random.default_rng(0)
    noise = lambda _: rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)  # noqa: E731
    path = write_container(tmp_path / "corrupt.mkv", codec="mpeg4", packets=damage, draw=noise)
    with pytest.warns(UserWarning, match="1 of 12 frames are damaged, the first is 00000007"):
        assert len(read(path)[1]) == 12
    assert "frame 00000007 is damaged; leave --strict out" in refused(path, strict=True)


def test_frames_that_the_decoder_leaves_out_are_said(tmp_path):
    """As of a packet in which the decoder finds nothing; the container counts it."""
    path = write_movie(tmp_path / "hole.mp4")
    facts = video_files.read_facts(path)
    facts = facts._replace(times=(*facts.times, 1.0))
    with pytest.warns(UserWarning, match="1 of 7 frames are damaged and left out"):
        assert len(list(video_files.decode_file(path, facts, strict=False))) == 6
    with pytest.raises(UserError, match="1 of 7 frames are not decoded"):
        list(video_files.decode_file(path, facts, strict=True))


def test_an_edit_list_that_cuts_the_end_is_followed_everywhere(tmp_path):
    path = write_container(tmp_path / "trim.mp4")
    patched(path, b"elst", 12, struct.pack(">I", 800))  # shown for 0.8 s of a movie clock of 1000 a second
    _, frames = read(path)
    assert brightness(frames) == [0, 1, 2, 3, 4]


def test_source_timestamps_are_kept_in_the_copy(tmp_path):
    times = [0.0, 0.033, 0.067, 0.667, 0.7, 2.2]
    video, frames = read(write_movie(tmp_path / "vfr.mp4", times=times))
    assert video.times == pytest.approx(times, abs=1e-4) and len(frames) == 6


def test_pixel_aspect_is_read_and_written(tmp_path):
    path = write_movie(tmp_path / "sar.mp4", pixel_aspect=Fraction(2))
    assert read(path)[0].pixel_aspect == 2
    quarter = with_matrix(path, 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    assert read(quarter)[0].pixel_aspect == Fraction(1, 2)  # width and height have changed places


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        (IDENTITY, lambda x: x),
        ((-(1 << 16), *IDENTITY[1:]), lambda x: x[:, ::-1]),
        ((*IDENTITY[:4], -(1 << 16), *IDENTITY[5:]), lambda x: x[::-1]),
        ((-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30), lambda x: x[::-1, ::-1]),
        ((0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30), lambda x: np.rot90(x, -1)),
        ((0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30), np.rot90),
        ((0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30), lambda x: x.swapaxes(0, 1)),
        ((0,) * 8 + (1 << 30,), lambda x: x),  # says nothing
    ],
)
def test_a_display_matrix_is_followed_as_players_do(tmp_path, matrix, shown):
    _, frames = read(with_matrix(write_movie(tmp_path / "v.mp4", 2), *matrix))
    assert np.abs(frames[0].image.astype(int) - shown(picture())).mean() < 4


def test_of_two_streams_the_one_that_ffmpeg_chooses_is_taken_and_said(tmp_path):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        made = [container.add_stream("libx264", rate=FPS) for _ in range(2)]
        for stream, scale in zip(made, (1, 2), strict=True):
            stream.width, stream.height, stream.pix_fmt = scale * WIDTH, scale * HEIGHT, "yuv420p"
        for i in range(3):
            for stream, scale in zip(made, (1, 2), strict=True):
                image = picture(i, scale * HEIGHT, scale * WIDTH)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in made:
            container.mux(stream.encode())
    with av.open(str(path)) as container:
        best = container.streams.best("video")
        size, other = (best.height, best.width), next(s for s in container.streams.video if s.index != best.index)
        message = f"has 2 video streams; {best.width}x{best.height} is taken, not {other.width}x{other.height}"
    with pytest.warns(UserWarning, match=message):
        assert read(path)[0].size() == size


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "cover.mp3"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("mp3", rate=16000), container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24").reformat(format="yuvj420p")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 8), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(sound.encode(silence) + sound.encode())
    assert "has no video stream" in refused(path)


def test_a_size_that_changes_inside_a_stream_is_named(tmp_path):
    parts = [write_container(tmp_path / "a.ts", 6)]
    with MovieWriter(tmp_path / "b.mp4", fps=FPS) as movie:
        for i in range(6):
            movie.write(picture(i, WIDTH, HEIGHT))
    with av.open(str(tmp_path / "b.mp4")) as source, av.open(str(tmp_path / "b.ts"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    path = tmp_path / "reschange.ts"
    path.write_bytes(parts[0].read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert "video reschange: frame 00000006 has 48x64 pixels; expected 64x48" in refused(path)


@pytest.mark.parametrize("name", ["anim.webp", "anim.gif", "anim.png"])
def test_animated_images_are_videos_with_their_own_clock(tmp_path, name):
    pictures = [Image.fromarray(picture(i)) for i in range(4)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=[100, 300, 100, 100])
    video, frames = read(tmp_path / name)
    assert brightness(frames) == [0, 1, 2, 3] and video.times == pytest.approx([0, 0.1, 0.4, 0.5])


def test_a_colon_in_a_relative_path_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_movie(pathlib.Path("2024-01-01T12:30:00.mp4"))
    assert len(read("2024-01-01T12:30:00.mp4")[1]) == 6


# ---- other sources


def test_dots_are_named_after_their_folder(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "walk", ["0.jpg"])
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder)
    assert read(".")[0].video_id == "walk"
    monkeypatch.chdir(folder / "inner")
    assert read("..")[0].video_id == "walk"


def test_dangling_links_and_long_names_are_named(tmp_path):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    assert "gone.mp4: is a link that leads nowhere" in refused(tmp_path / "gone.mp4")
    folder = write_images(tmp_path / "v", ["a" * 240 + ".jpg"])
    assert "its name has 240 bytes; expected at most 200" in refused(folder)


def test_a_folder_of_videos_and_a_glob_in_natural_order(tmp_path):
    for i in (10, 2, 1):
        write_movie(tmp_path / f"{i}.mp4", 2)
    for source in (tmp_path, tmp_path / "*.mp4"):
        assert [video.video_id for video in open_sources([source])] == ["1", "2", "10"]
    with pytest.raises(UserError, match="fits no file"):
        open_sources([tmp_path / "*.avi"])
    Image.fromarray(picture()).save(tmp_path / "0.jpg")
    with pytest.warns(UserWarning, match="3 files are no images and left out, such as 1.mp4"):
        assert read(tmp_path)[0].stems == ("0",)


def test_a_broken_source_among_others_can_be_left_out(tmp_path):
    write_movie(tmp_path / "a.mp4", 2)
    (tmp_path / "b.mp4").write_text("no video")
    said = []
    (video,) = open_sources([tmp_path / "*.mp4"], skip=lambda name, error: said.append((name, str(error))))
    assert video.video_id == "a"
    assert [name for name, _ in said] == [str(tmp_path / "b.mp4")] and "cannot be read as a video" in said[0][1]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), range(12)),
        (Selection(start=0.5), range(3, 12)),
        (Selection(end=0.5), range(3)),
        (Selection(start=0.5, end=1.5, stride=2), [3, 5, 7]),
        (Selection(max_frames=4), range(4)),
        (Selection(fps=2), [0, 3, 6, 9]),
        (Selection(fps=100), range(12)),
        (Selection(start=1 / 3, fps=3, max_frames=2), [2, 4]),
    ],
)
def test_a_part_of_a_video(tmp_path, selection, expected):
    for source in (write_container(tmp_path / "v.mp4"), write_images(tmp_path / "w", [f"{i}.jpg" for i in range(12)])):
        video, frames = read(source, selection=selection)
        assert brightness(frames) == list(expected)
        assert [round(time * FPS) for time in video.times] == list(expected)


def test_a_part_that_is_empty_or_no_part_is_named(tmp_path):
    path = write_movie(tmp_path / "v.mp4", 2)
    assert "no frame from --start 9.0" in refused(path, selection=Selection(start=9.0))
    for wrong in ({"start": -1}, {"start": 2, "end": 1}, {"stride": 0}, {"fps": 0}, {"max_frames": 0}):
        with pytest.raises(UserError, match="--"):
            Selection(**wrong)
    assert [seconds("90"), seconds("1:30"), seconds("0:01:30.5")] == [90, 90, 90.5]
    with pytest.raises(UserError, match="'soon' is no time"):
        seconds("soon")


@pytest.fixture
def server(tmp_path):
    """A web server over a folder with a video of seven frames."""
    write_movie(tmp_path / "clip.mp4", 7)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_video_from_the_web_is_read_once_for_all_its_readers(server):
    (video,) = open_sources([f"{server}/clip.mp4?token=1"])
    assert video.video_id == "clip" and video.num_frames == 0 and video.size() == (HEIGHT, WIDTH)
    model, overlay = video.frames(), video.frames()
    for i, frame in enumerate(model):
        again = next(overlay)
        assert frame.stem == again.stem == f"{i:08d}" and np.array_equal(frame.image, again.image)
        assert brightness([frame]) == [i] and frame.time == pytest.approx(i / FPS)
    assert i == 6 and next(overlay, None) is None
    with pytest.raises(UserError, match="a stream can be read once"):
        video.frames()
    (part,) = open_sources([f"{server}/clip.mp4"], selection=Selection(max_frames=2))
    assert brightness(part.frames()) == [0, 1]
    with pytest.raises(UserError, match="none.mp4: cannot be read as a video"):
        open_sources([f"{server}/none.mp4"])


def test_standard_input_is_a_video_file(tmp_path):
    path = write_movie(tmp_path / "v.mp4")
    with path.open("rb") as file:
        video = streams.open_standard_input(strict=False, source=file)
    assert video.video_id == "stdin" and brightness(video.frames()) == list(range(6)) == brightness(video.frames())
    with open(os.devnull, "rb") as file, pytest.raises(UserError, match="standard input is empty"):
        streams.open_standard_input(strict=False, source=file)


def test_cameras_and_rtsp_are_opened_as_ffmpeg_names_them(monkeypatch):
    asked = []

    def refuse(url, **options):
        asked.append((url, options.get("format"), options.get("options")))
        raise OSError("nothing there")

    monkeypatch.setattr(av, "open", refuse)
    monkeypatch.setattr("sys.platform", "linux")
    for source in ("camera:1", "rtsp://host/live"):
        with pytest.raises(UserError, match=f"{source}: cannot be read as a video .nothing there"):
            open_sources([source])
    assert asked == [("/dev/video1", "v4l2", None), ("rtsp://host/live", None, {"rtsp_transport": "tcp"})]


def test_the_sound_of_the_source_is_copied(tmp_path):
    source = tmp_path / "sound.mp4"
    with av.open(str(source), "w") as container:
        video, audio = container.add_stream("libx264", rate=FPS), container.add_stream("aac", rate=16000)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(12):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        tone = np.sin(np.arange(32000, dtype=np.float32) / 20)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(video.encode() + audio.encode(frame) + audio.encode())
    with MovieWriter(tmp_path / "copy.mp4", fps=FPS, sound=source) as movie:
        for frame in open_sources([source], selection=Selection(start=1.0))[0].frames():
            movie.write(frame.image, frame.time)
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples == pytest.approx(16000, abs=3000)  # the second half
