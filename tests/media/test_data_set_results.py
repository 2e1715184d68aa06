"""Result formats of single data sets: what our readers read back is written again with the same bytes."""

import json
import pathlib

import numpy as np
from pycocotools import mask as coco

from vps_jax.datasets import burst, cityscapes_vps, rle
from vps_jax.datasets.classes import class_table
from vps_jax.evaluation import cityscapes_vps_files, images
from vps_jax.media import result_folders
from vps_jax.media.mask_lists import identifier
from vps_jax.types import InstanceMask, PanopticFrame

ROAD, SKY, PERSON, CAR = 0, 10, 11, 13


def street(seed, size=(6, 8)):
    """Road and sky with two cars and a person that change places from frame to frame."""
    rng = np.random.default_rng(seed)
    tracks = rng.choice([0, 0, 0, 1, 2, 5], size).astype(np.int32)
    categories = np.where(rng.random(size) < 0.5, ROAD, SKY)
    categories = np.where(tracks > 0, np.where(tracks == 5, PERSON, CAR), categories)
    return PanopticFrame("", categories.astype(np.uint8), tracks)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Results of a folder by their names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".state" not in path.parts
    }


NAMES = ["0005_0025_frankfurt_000000_001736_newImg8bit", "0005_0026_frankfurt_000000_001741_leftImg8bit"]


def write_cityscapes(folder, videos):
    """Returns the id of every track in the results, by video."""
    writer = result_folders.make_writer(folder, "cityscapes-vps", cityscapes_vps.CLASSES)
    ids = {}
    for name, frames in videos.items():
        with writer.video(name, order=tuple(videos)) as result:
            for frame in frames:
                result.write(frame)
            ids[name] = {result.segment_id(t, c): t for t, c in ((1, CAR), (2, CAR), (5, PERSON))}
    return ids


def test_cityscapes_vps_results_come_back_with_the_same_bytes(tmp_path):
    videos = {
        "0015": [street(2)._replace(stem=NAMES[0].replace("0005_", "0015_"))],
        "0005": [street(i)._replace(stem=stem) for i, stem in enumerate(NAMES)],
    }
    ids = write_cityscapes(tmp_path / "a", videos)
    source = tmp_path / "a" / "pred.json"
    rows = cityscapes_vps_files.read_rows(source)
    assert list(rows) == [
        "0015_0025_frankfurt_000000_001736", "0005_0025_frankfurt_000000_001736", "0005_0026_frankfurt_000000_001741",
    ]  # fmt: skip
    pngs = cityscapes_vps_files.pngs(tmp_path / "a" / "pan_pred", len(rows), source)
    assert len(pngs) == 3 and not list((tmp_path / "a").glob(".*.partial"))
    known, again = frozenset(range(19)), {}
    for video, frames in videos.items():
        for frame in frames:
            name = cityscapes_vps.frame_name(frame.stem)
            cityscapes_vps_files.read_record(name, rows[name], pngs[name], source, known, truth=False)
            image = images.read_png(pngs[name], kind="RGB")[..., ::-1]
            read = result_folders.decode_frame(
                frame.stem, image, rows[name]["segments_info"], cityscapes_vps.CLASSES, dict(ids[video])
            )
            assert np.array_equal(read.categories, frame.categories)
            assert np.array_equal(read.track_ids, frame.track_ids)
            again.setdefault(video, []).append(read)
    write_cityscapes(tmp_path / "b", again)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_videos_of_one_folder_do_not_share_names(tmp_path):
    clip = [street(0)._replace(stem="00000000")]
    write_cityscapes(tmp_path, {"a": clip, "b": clip})
    assert sorted(cityscapes_vps_files.read_rows(tmp_path / "pred.json")) == ["a_00000000", "b_00000000"]


def write_burst(folder, videos, number=None):
    writer = result_folders.make_writer(folder, "burst", class_table("davis"))
    for name, frames in videos.items():
        with writer.video(name, order=tuple(videos), number=number) as result:
            for frame in frames:
                result.write(frame)


def test_burst_results_come_back_with_the_same_bytes(tmp_path):
    objects = [
        [PanopticFrame(f"frame{30 * i + 1:04d}", np.where(f.track_ids > 0, 0, 255).astype(np.uint8), f.track_ids)
         for i, f in enumerate(map(street, seeds))]
        for seeds in ((0, 1), (2, 3))
    ]  # fmt: skip
    videos = {"LaSOT/person-1": objects[0], "YFCC100M/v_x": objects[1]}
    write_burst(tmp_path / "a", videos)
    path = tmp_path / "a" / "results.json"
    rows, again = json.loads(path.read_text())["sequences"], {}
    assert [row["annotated_image_paths"] for row in rows] == [["frame0001.jpg", "frame0031.jpg"]] * 2
    assert set(burst.NEEDS) <= set(rows[0])
    for row, (name, frames) in zip(rows, videos.items(), strict=True):
        assert f"{row['dataset']}/{row['seq_name']}" == name
        tracks = burst.tracks_of(row, path, name)
        numbers = sorted(row["track_category_ids"], key=int)
        for i, frame in enumerate(frames):
            found = np.zeros(tracks.size, np.int32)
            for number, codes in zip(numbers, tracks.codes, strict=True):
                if codes[i] is not None:
                    found[rle.to_mask(rle.parse_counts(codes[i]), *tracks.size)] = int(number)
            assert np.array_equal(found, frame.track_ids)
            again.setdefault(name, []).append(frame._replace(track_ids=found))
    write_burst(tmp_path / "b", again)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    shown = rows[0]["segmentations"][0]["1"]
    decoded = coco.decode({"size": [6, 8], "counts": shown["rle"]})
    assert np.array_equal(decoded, objects[0][0].track_ids == 1) and shown["is_gt"] is False


def test_a_track_of_several_classes_has_its_likeliest_in_burst(tmp_path):
    mask = np.ones((2, 2), bool)
    instances = (InstanceMask(3, 1, 0.75, mask), InstanceMask(3, 0, 0.25, mask & False))
    frame = PanopticFrame("a", np.ones((2, 2), np.uint8), np.full((2, 2), 3, np.int32), {3: 0.75}, instances)
    writer = result_folders.make_writer(tmp_path, "burst", class_table("vipseg"))
    with writer.video("clip", number=7) as result:
        result.write(frame)
    (row,) = json.loads((tmp_path / "results.json").read_text())["sequences"]
    assert (row["id"], row["dataset"], row["seq_name"], row["track_category_ids"]) == (7, "videos", "clip", {"3": 1})
    assert row["segmentations"][0]["3"]["score"] == 0.75


def test_a_video_is_called_by_its_number_or_else_its_name():
    assert [identifier("a", None), identifier("07", None), identifier("a", 3), identifier("7", "x")] == ["a", 7, 3, "x"]
