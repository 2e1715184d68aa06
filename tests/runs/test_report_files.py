"""`vps-jax report`: result folders, their sources and their scores as one page; wrong ones in one line."""

import base64
import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest

from vps_jax import cli
from vps_jax.data import synthetic, vipseg_convert
from vps_jax.datasets.classes import class_table
from vps_jax.evaluation.vipseg_folders import read_classes
from vps_jax.infer.predict import Run, RunOptions
from vps_jax.media.result_folders import VipsegWriter
from vps_jax.media.selection import Selection
from vps_jax.media.sources import open_sources
from vps_jax.runs.report_files import report
from vps_jax.runs.report_scores import Scoring
from vps_jax.runs.report_sources import MOST_PICTURES, MOST_PICTURES_IN_ALL, Pictures
from vps_jax.types import PanopticFrame, UserError

CLASSES = class_table("vipseg")
WALL, CAR = 0, 48


def write_frames(folder, count=3, size=(6, 8)):
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((*size, 3), 40 * i, np.uint8))
    return folder


def panoptic_frames(video):
    """A wall with car 9 everywhere and car 4 from the second frame on."""
    for i, stem in enumerate(video.stems):
        categories, tracks = np.full((6, 8), WALL, np.uint8), np.zeros((6, 8), np.int32)
        categories[:2], tracks[:2, :4], tracks[:2, 4:] = CAR, 9, 4 if i else 9
        yield PanopticFrame(stem, categories, tracks, {9: 0.5, 4: 0.25})


def predict(sources, out, **options):
    """Results as `vps-jax predict` writes them, without a model."""
    videos = open_sources(sources, **options)
    run = Run(VipsegWriter(out, CLASSES), CLASSES, RunOptions(overlay=False, tracks=True, progress=False, made_by="m"))
    run.write(videos, [panoptic_frames])
    return out


@pytest.fixture
def results(tmp_path):
    """Results of two videos whose sources are still there."""
    return predict([write_frames(tmp_path / "in" / name) for name in ("one", "two")], tmp_path / "out")


def page(path):
    found = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', path.read_text(), re.S)
    return {name: json.loads(text) for name, text in found}


def levels(video):
    """Mean grey level of each picture, None where there is no image."""
    data = [one["image"] and np.frombuffer(base64.b64decode(one["image"]), np.uint8) for one in video["pictures"]]
    return [one if one is None else round(float(cv2.imdecode(one, cv2.IMREAD_COLOR).mean())) for one in data]


def main(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code, *capsys.readouterr()


def test_the_command_shows_the_images_that_predict_has_read(results, tmp_path, capsys):
    code, out, err = main(capsys, "report", results)
    assert (code, err) == (0, "") and re.fullmatch(rf"2 videos, 6 frames, 0\.\d MB -> {results}/report.html\n", out)
    found = page(results / "report.html")
    assert found["head"]["videos"] == [{"name": "one", "frames": 3}, {"name": "two", "frames": 3}]
    assert found["head"]["classes"][CAR]["name"] == "car"
    video = found["video1"]
    assert video["stems"] == ["0", "1", "2"] and levels(video) == pytest.approx([0, 40, 80], abs=3)
    assert [row["time"] for row in video["pictures"]] == pytest.approx([0, 1 / 6, 2 / 6])
    assert video["areas"] == {str(WALL): [32, 32, 32], str(CAR): [16, 16, 16]}
    assert [path.name for path in sorted(results.iterdir()) if path.name[0] != "."] == [
        "classes.json", "pan_pred", "pred.json", "report.html", "tracks",
    ]  # fmt: skip


def test_a_track_has_one_number_and_its_score(results):
    report(results, progress=False)
    tracks = page(results / "report.html")["video0"]["tracks"]
    assert [(row["track"], row["spans"], row["score"]) for row in tracks] == [
        (4, [[1, 2]], 0.25),
        (9, [[0, 2]], 0.5),
    ]


def test_the_part_that_was_predicted_is_shown(tmp_path):
    folder = write_frames(tmp_path / "in", count=6)
    out = predict([folder], tmp_path / "out", selection=Selection(stride=2, start=0.3))
    report(out, progress=False)
    video = page(out / "report.html")["video0"]
    assert video["stems"] == ["2", "4"] and levels(video) == pytest.approx([80, 160], abs=3)


def test_pictures_are_few_and_even_and_numbers_are_of_all_frames(results):
    report(results, videos=["two"], pictures=Pictures(most=2), progress=False)
    found = page(results / "report.html")
    assert [row["name"] for row in found["head"]["videos"]] == ["two"]
    assert [row["frame"] for row in found["video0"]["pictures"]] == [0, 2]
    assert len(found["video0"]["areas"][str(CAR)]) == 3


def test_many_videos_share_the_room():
    assert Pictures().each(1) == MOST_PICTURES and Pictures(most=7).each(9000) == 7
    assert Pictures().each(343) * 343 <= MOST_PICTURES_IN_ALL and Pictures().each(10**6) == 1


def test_sources_that_have_moved_are_asked_for(results, tmp_path):
    (tmp_path / "in").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"video one: its source .*in/one is not there any more; name its place with "):
        report(results, progress=False)
    assert not list(results.glob("*report*"))
    with pytest.raises(UserError, match="no video named two, but one; name it too"):
        report(results, pictures=Pictures([tmp_path / "moved/one"]), progress=False)
    report(results, pictures=Pictures([str(tmp_path / "moved" / name) for name in ("one", "two")]), progress=False)
    assert levels(page(results / "report.html")["video1"]) == pytest.approx([0, 40, 80], abs=3)
    done = report(results, pictures=Pictures(images=False), progress=False)
    assert levels(page(results / "report.html")["video1"]) == [None] * 3 and done.notes == ()


def test_other_videos_of_the_same_name_are_refused(results, tmp_path):
    other = write_frames(tmp_path / "other" / "one", size=(8, 8))
    with pytest.raises(UserError, match="has 8x8 pixels, its results 8x6"):
        report(results, videos=["one"], pictures=Pictures([other]), progress=False)
    short = write_frames(tmp_path / "short" / "one", count=2)
    with pytest.raises(UserError, match="has no frame 2 as the results do"):
        report(results, videos=["one"], pictures=Pictures([short]), progress=False)
    shutil.rmtree(tmp_path / "in/one")
    (tmp_path / "in/one").mkdir()
    with pytest.raises(UserError, match=r"video one: .*is empty.*; or name its place with --source"):
        report(results, progress=False)
    assert not list(results.glob("*report*"))


def test_results_of_before_have_colours_alone(results):
    """Earlier versions recorded neither the sources nor the classes."""
    for path in (results / ".state").glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in content.items() if name != "origin"}))
    done = report(results, progress=False)
    assert done.notes == (
        "no images of one and 1 more: predict did not record where they came from; name it with --source",
    )
    shutil.rmtree(results / ".state")
    assert report(results, progress=False).notes == done.notes and not (results / ".state").exists()
    assert page(results / "report.html")["head"]["notes"] == list(done.notes)
    (results / "classes.json").unlink()
    with pytest.raises(UserError, match="classes.json: is missing"):
        report(results, progress=False)


def wrong(results, change):
    change(results)
    with pytest.raises(UserError) as error:
        report(results, progress=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: (out / "pred.json").unlink(), "has no pred.json; expected the --output of `vps-jax predict`"),
        (lambda out: shutil.rmtree(out), "is no folder"),
        (lambda out: edit(out / "pred.json", lambda c: c["annotations"].clear()), "lists no video; predict some"),
        (
            lambda out: edit(out / "pred.json", lambda c: c["annotations"][1]["annotations"].clear()),
            "video two: has no frames; predict it again",
        ),
        (lambda out: edit(out / "classes.json", lambda c: c.pop(CAR)), "has category 48; expected"),
        (lambda out: (out / "classes.json").write_text("[{}]"), "class list lacks the key"),
        (lambda out: (out / "classes.json").write_text("["), "is no class list"),
        (lambda out: edit(out / "classes.json", lambda c: c[0].update(color=[1e400, 0, 0])), "row of another form"),
        (
            lambda out: edit(out / "pred.json", lambda c: c["annotations"].append(c["annotations"][0])),
            "video one stands in it twice",
        ),
        (lambda out: (out / "tracks/two.json").write_text("{}"), "two.json: is no table of tracks"),
        (lambda out: (out / "pan_pred/two/1.png").unlink(), "two/1.png: missing or damaged"),
        (lambda out: (out / "report.html").mkdir(), "report.html is a folder"),
    ],
)
def test_what_is_wrong_is_one_line(results, change, words):
    assert words in wrong(results, change)
    assert not [path for path in results.parent.rglob("*report*") if path.is_file()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"videos": ["three"]}, "video three is not in it; it has 2"),
        ({"pictures": Pictures(side=1)}, "--side 1: expected"),
        ({"pictures": Pictures(most=0)}, "--max-frames 0"),
        ({"pictures": Pictures(["a"], images=False)}, "--source a means nothing with --no-images"),
        ({"scoring": Scoring(before="x.json")}, "--compare x.json needs scores"),
        ({"scoring": Scoring(truth="a", json="b")}, "give one of them"),
    ],
)
def test_options_that_cannot_work(results, options, words):
    with pytest.raises(UserError, match=words):
        report(results, progress=False, **options)


def test_results_and_sources_are_never_written_over(tmp_path):
    image = write_frames(tmp_path / "in") / "1.png"
    scores = tmp_path / "scores.json"
    scores.write_text("precious")
    results = predict([image], tmp_path / "out")
    before = {path: path.read_bytes() for path in (image, scores)}
    options = {image: {}, scores: {"scoring": Scoring(json=scores)}, results / "pred.json": {}}
    for output, more in {**options, results / "classes.json": {}}.items():
        with pytest.raises(UserError, match="is an input"):
            report(results, output, progress=False, **more)
    (png,) = (results / "pan_pred").glob("*/*.png")  # of one image
    for output in (png, tmp_path / "notes.txt"):
        output.touch()
        with pytest.raises(UserError, match="is there and is no page"):
            report(results, output, progress=False)
    assert {path: path.read_bytes() for path in before} == before
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is no regular file"):
        report(results, tmp_path / "pipe", progress=False)
    assert (tmp_path / "pipe").is_fifo()


def test_classes_of_a_truth_keep_their_colors():
    rows = [
        {"id": 0, "name": "sky", "isthing": 0, "color": [70, 130, 180]},
        {"id": 1, "name": "car", "isthing": 1, "color": [300, 0, 0]},  # none that can be shown
        {"id": 2, "name": "cat", "isthing": 1},
    ]
    assert read_classes(rows)[0].colors == ((70, 130, 180), (0, 0, 0), (0, 0, 0))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"segments_info": None}, "segments_info is null; expected a list"),
        ({"segments_info": [3]}, "segment 3; expected an object"),
        ({"segments_info": [{"id": 10**30, "category_id": CAR}]}, "expected 1..16777215"),
        ({"file_name": None}, "file_name is null; expected the name of the frame's file"),
    ],
)
def test_rows_that_are_no_frames_are_refused(results, broken, words):
    edit(results / "pred.json", lambda content: content["annotations"][0]["annotations"][0].update(broken))
    with pytest.raises(UserError, match=f"pred.json: video one, frame number 0: .*{re.escape(words)}"):
        report(results, progress=False)


def test_pixels_without_a_row_are_refused(results):
    edit(results / "pred.json", lambda content: content["annotations"][0]["annotations"][0]["segments_info"].pop())
    with pytest.raises(UserError, match="has the id .*, which pred.json does not list; predict it again"):
        report(results, progress=False)


def test_results_may_lie_among_their_frames(tmp_path):
    folder = write_frames(tmp_path / "in")
    report(predict([folder], folder / "out"), progress=False)
    assert page(folder / "out" / "report.html")["video0"]["stems"] == ["0", "1", "2"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A truth of two drawn videos, and results that are that truth."""
    folder = tmp_path_factory.mktemp("scored")
    raw, truth, results = folder / "raw", folder / "truth", folder / "results"
    synthetic.synthesize(raw, train=0, val=2, test=0, sizes=((48, 64),), lengths=(6,), progress=False)
    vipseg_convert.convert(raw, truth, height=48, progress=False)
    results.mkdir()
    (results / "pan_pred").symlink_to(truth / "panomasksRGB")
    (results / "pred.json").symlink_to(truth / "panoptic_gt_VIPSeg_val.json")
    return truth, results


def test_scores_and_a_comparison(scored, tmp_path, capsys):
    truth, results = scored
    before = tmp_path / "before.json"
    assert main(capsys, "evaluate", "--truth", truth, "--predictions", results, "--json", before)[0] == 0
    options = ("--truth", truth, "--source", truth, "--metrics", "vpq,stq,miou,anatomy", "--compare", before)
    code, out, _ = main(capsys, "report", results, "--output", tmp_path / "r.html", *options)
    assert code == 0 and "note: " not in out  # classes of the truth stand for the missing list
    found = page(tmp_path / "r.html")
    head = found["head"]
    titles = {table["title"]: table for table in head["tables"] if table["heading"] == "Scores"}
    assert {"Scores of classes", "Scores of videos", "Other scores"} < set(titles)
    assert titles["Scores of videos"]["rows"][0][1] == 100.0  # the results are the truth
    assert dict(found["video0"]["scores"])["vpq"] == 100.0
    assert [plot["title"] for plot in head["plots"]] == ["vpq of classes", "anatomy", "confusion"]
    assert base64.b64decode(head["plots"][0]["png"]).startswith(b"\x89PNG")
    compared = [table for table in head["tables"] if table["heading"] == f"Compared with {before} (A)"]
    assert ["vpq", 100.0, 100.0, 0.0] in [row[:4] for row in compared[0]["rows"]]
    assert any(note.startswith("leaderboard row") for note in head["notes"])
    assert found["video0"]["pictures"][0]["image"]


def test_a_json_of_scores_is_shown_as_it_is(results, scored, tmp_path, capsys):
    truth, same = scored
    before, copy = tmp_path / "before.json", tmp_path / "copy"
    main(capsys, "evaluate", "--truth", truth, "--predictions", same, "--json", before, "--metrics", "vpq")
    shutil.copytree(same, copy)
    (copy / "classes.json").write_text(json.dumps(CLASSES.rows()))
    assert main(capsys, "report", copy, "--scores", before, "--no-images")[0] == 0
    head = page(copy / "report.html")["head"]
    assert head["tables"][0]["rows"][-1][1] == 100.0 and [one["title"] for one in head["plots"]] == ["vpq of classes"]


@pytest.mark.parametrize("name", ["before.json", "nothing.json"])
def test_scores_of_other_videos_or_of_no_file_are_refused(results, scored, tmp_path, capsys, name):
    main(capsys, "evaluate", "--truth", scored[0], "--predictions", scored[1], "--json", tmp_path / "before.json")
    words = "its videos are others: .* is in the .* alone" if name == "before.json" else "no such file or folder"
    with pytest.raises(UserError, match=words):
        report(results, scoring=Scoring(json=tmp_path / name), progress=False)
    assert not (results / "report.html").exists()
