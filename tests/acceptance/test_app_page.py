"""`vps-jax app` in a real browser: a video is uploaded and its overlay plays; what it does not give away."""

import csv
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import micro_checkpoint
import numpy as np
import pytest
from quick_compile import xla_flags

from vps_jax.media.movie_writer import MovieWriter

pytestmark = pytest.mark.acceptance

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 400
FPS, LENGTH, LONG = 10, 20, 400
HEIGHT, WIDTH = 96, 160


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A VidEoMT of two blocks with weights of chance, for which everything it sees is a thing."""
    infer = {"short_side_px": 48, "max_side_px": 96, "chunk_frames": 4, "online": True}
    infer |= {"score_threshold": 0.001, "overlap_threshold": 0.0}
    return micro_checkpoint.videomt(tmp_path_factory.mktemp("app") / "run", query_blocks=2, **infer)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Drawn videos: a red box goes to the right over grass, below a sky. One is long."""
    folder = tmp_path_factory.mktemp("clips")
    for name, length in (("clip", LENGTH), ("long", LONG)):
        with MovieWriter(folder / f"{name}.mp4", fps=FPS) as movie:
            for i in range(length):
                image = np.full((HEIGHT, WIDTH, 3), (70, 130, 190), np.uint8)
                image[HEIGHT // 2 :] = 60, 120, 50
                image[40:70, 6 * (i % 20) : 6 * (i % 20) + 30] = 200, 40, 40
                movie.write(image)
    return folder


@pytest.fixture(scope="module")
def app(checkpoint, tmp_path_factory):
    """The address of a running page and the folder in which it keeps its files."""
    folder = tmp_path_factory.mktemp("temporary")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "XLA_FLAGS": xla_flags(1)}
    command = [sys.executable, "-m", "vps_jax", "app", "--checkpoint", str(checkpoint), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        try:
            line = process.stdout.readline()
            (address,) = re.findall(r"^run \(videomt\) is shown at (http://127\.0\.0\.1:\d+/); Ctrl-C ends it$", line)
            yield address, folder
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
    assert not list(folder.iterdir())  # nothing is left


@pytest.fixture
def page(driver, app):
    """The page, just opened; nothing was asked for elsewhere when the test is over."""
    address, _ = app
    driver.get_log("performance")
    driver.get(address)
    until(lambda: driver.find_elements("css selector", "#files input[type=file]"))
    yield driver
    driver.get("about:blank")
    messages = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 5 and not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def until(is_so):
    """Wait for something true, and return it."""
    end = time.monotonic() + SECONDS
    while not (found := is_so()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def segment(page, clip):
    """Upload a video and ask for its segments."""
    page.find_element("css selector", "#files input[type=file]").send_keys(str(clip))
    until(lambda: page.find_elements("css selector", "#files a[href*='/file=']"))  # of what has come whole
    page.find_element("id", "run").click()


def said(page) -> str:
    return page.find_element("id", "state").text


def status(address, path, data=None, **headers) -> int:
    """What the server answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def files_in(folder) -> list[str]:
    """Names of what is kept; gradio leaves empty files behind."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def test_a_video_is_uploaded_and_its_overlay_plays(page, app, clips, tmp_path):
    address, folder = app
    segment(page, clips / "clip.mp4")
    assert until(lambda: re.search(rf"clip: frame \d+ of {LENGTH}, 0:00:\d\d left", said(page)))
    page.save_screenshot(str(tmp_path / "busy.png"))
    until(lambda: page.find_elements("css selector", "#results video"))
    assert re.fullmatch(rf"1 video, {LENGTH} frames in 0:\d\d:\d\d", said(page))

    def film(what):
        return page.execute_script(f"return document.querySelector('#results video').{what}")

    until(lambda: film("readyState") >= 3)
    assert (film("videoWidth"), film("videoHeight"), film("duration")) == (WIDTH, HEIGHT, LENGTH / FPS)
    page.execute_script("document.querySelector('#results video').play()")
    until(lambda: film("currentTime") > 0.5)

    url = page.find_element("id", "download").get_attribute("href")
    assert url.startswith(address)
    with urllib.request.urlopen(url) as answer:
        archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    names = archive.namelist()
    assert {"pred.json", "overlay/clip.mp4", "tracks/clip.json", "report.html"} < set(names)
    assert sum(name.startswith("pan_pred/clip/") for name in names) == LENGTH
    rows = list(csv.DictReader(io.TextIOWrapper(archive.open("tracks/clip.csv"))))
    cells = [row.text.split() for row in page.find_elements("css selector", "#results tbody tr")]
    assert rows and [row[:2] for row in cells] == [[row["track"], row["class"]] for row in rows]

    page.save_screenshot(str(tmp_path / "done.png"))
    page.switch_to.frame(page.find_element("id", "report"))
    until(lambda: page.execute_script("return document.getElementById('canvas').dataset.drawn") == "clip 0")
    spans = page.find_elements("css selector", ".track .span")
    assert len(spans) >= len(rows) and page.find_element("id", "title").text == "clip"
    page.switch_to.default_content()
    assert "clip.mp4" in files_in(folder)
    page.get("about:blank")
    until(lambda: not files_in(folder))  # the visit is over


def test_a_run_is_cancelled(page, app, clips):
    _, folder = app
    segment(page, clips / "long.mp4")
    until(lambda: re.search(rf"long: frame \d+ of {LONG}", said(page)))
    page.find_element("id", "cancel").click()
    until(lambda: said(page) == "Cancelled; nothing of it is kept.")
    until(lambda: page.find_element("id", "run").is_enabled())
    assert not page.find_elements("css selector", "#results video")
    until(lambda: files_in(folder) == ["long.mp4"])  # the upload, for another try


def test_what_is_no_video_is_said_in_one_line(page, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    segment(page, tmp_path / "broken.mp4")
    line = until(lambda: said(page) if "expected mp4" in said(page) else "")
    assert line.startswith("broken.mp4: cannot be read as a video") and "/" not in line
    until(lambda: page.find_element("id", "run").is_enabled())


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=/etc/passwd", "gradio_api/file=../../../../etc/passwd", "gradio_api/file={folder}/../secret",
     "gradio_api/file={checkpoint}/config.json", "results/x/../../etc/passwd", "results/x//etc/passwd",
     "file=/etc/passwd", "gradio_api/file=%2e%2e%2f%2e%2e%2fetc%2fpasswd", "results/x/%2e%2e%2fetc%2fpasswd"],
)  # fmt: skip
def test_files_of_others_are_not_given(app, checkpoint, path):
    address, folder = app
    (folder.parent / "secret").write_text("x")
    assert status(address, path.format(folder=folder, checkpoint=checkpoint)) in (403, 404)


def test_a_path_that_a_client_sends_is_not_read(app):
    """What the page sends when Segment is clicked, with a file that was never uploaded."""
    address, _ = app
    config = json.load(urllib.request.urlopen(address + "config"))
    number = max(config["dependencies"], key=lambda one: len(one["inputs"]))["id"]
    given = {"path": "/etc/passwd", "orig_name": "clip.mp4", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [[given], "panoptic", [], 0.5, False], "fn_index": number, "session_hash": "stranger"}
    join = urllib.request.Request(
        address + "gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(join).close()
    with urllib.request.urlopen(address + "gradio_api/queue/data?session_hash=stranger", timeout=SECONDS) as events:
        told = [json.loads(line[6:]) for line in events if line.startswith(b"data: ")]
    (end,) = (one for one in told if one["msg"] == "process_completed")
    assert not end["success"] and "root:" not in json.dumps(told)


def test_it_answers_on_loopback_alone_and_to_its_own_names(app):
    address, _ = app
    port = int(address.rstrip("/").rpartition(":")[2])
    assert status(address, "") == 200
    assert status(address, "", Host=f"localhost:{port}") == 200
    assert status(address, "", Host="somewhere.example") == 400
    assert status(address, "config", Origin=address.rstrip("/")) == 200
    for origin in ("http://somewhere.example", "null", f"http://localhost:{port + 1}"):  # pages of others
        assert status(address, "gradio_api/upload", b"", Origin=origin) == 403
    others = {"127.0.0.2", *(info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET))}
    for other in others - {"127.0.0.1"}:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, port), timeout=5)
