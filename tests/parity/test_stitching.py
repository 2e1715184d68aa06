"""Stitching and panoptic merging against the published system, frame by frame (golden tarvis_g_stitch_*)."""

import numpy as np
import pytest
from golden_files import load

from vps_jax.config import ClipInference
from vps_jax.datasets.classes import ClassTable
from vps_jax.infer import clip_predictor, fusion, stitching, upsampling
from vps_jax.infer.clip_predictor import ClipPredictor
from vps_jax.infer.predict import predict_video
from vps_jax.infer.score_maps import GridScores
from vps_jax.runs.segmenter import array_video
from vps_jax.types import ClipPrediction, FrameScores, FrameTracks, Geometry

pytestmark = pytest.mark.parity


def case_names(folder):
    return sorted(path.stem for path in folder.glob("tarvis_g_stitch_*.json"))


def predictions(manifest, arrays):
    """First frame and raw scores of every clip of a case."""
    for i, frames in enumerate(manifest["inputs"]["clips"]):
        masks, classes, semantic = (
            arrays[f"clip{i}_{what}_logits_x256"].astype(np.float32) / 256
            for what in ("instance_mask", "instance_class", "semantic")
        )
        yield frames[0], ClipPrediction(masks, classes, semantic)


def geometry_of(inputs, semantic):
    padded = tuple(4 * side for side in semantic.shape[2:])
    return Geometry(padded, tuple(inputs["network_input_before_padding"]), tuple(inputs["original_height_width"]))


def stuff_of(things):
    return sorted(set(range(124)) - set(things))


def run(manifest, arrays):
    """All stitched frames, panoptic frames and closed tracks of a case, streamed clip by clip."""
    inputs = manifest["inputs"]
    stitcher = stitching.Stitcher(
        ClipInference(
            score_threshold=inputs["track_score_threshold"],
            max_tracks_per_clip=inputs["max_tracks_per_clip"],
            association_iou=inputs["association_iou_threshold"],
        )
    )
    geometry = geometry_of(inputs, arrays["clip0_semantic_logits_x256"])
    things = inputs["thing_class_ids"]
    fuser = fusion.Fuser(geometry, thing_ids=things, min_score=ClipInference().panoptic_score)
    steps = [stitcher.add(first, prediction) for first, prediction in predictions(manifest, arrays)]
    steps.append(stitcher.finish())
    fused = []
    for step in steps:
        for frame in step.frames:
            tracks = FrameTracks(frame.track_ids, frame.instance_masks, step.closed if frame is step.frames[-1] else ())
            scores = FrameScores(str(frame.index), geometry, GridScores(frame.semantic, geometry), tracks)
            fused += fuser.add(scores, stuff_ids=stuff_of(things))
    stitched = [frame for step in steps for frame in step.frames]
    closed = {track.track_id: track.class_logits for step in steps for track in step.closed}
    return geometry, stitched, fused, closed


@pytest.fixture(scope="module")
def cases(golden_dir, golden_is_whole):
    names = case_names(golden_dir)
    if not names:
        (pytest.fail if golden_is_whole else pytest.skip)(f"no tarvis_g_stitch_* in {golden_dir}")
    loaded = {name: load(golden_dir, name, whole=golden_is_whole) for name in names}
    return {name: (*case, *run(*case)) for name, case in loaded.items()}


def test_clips_are_cut_as_published(cases):
    for name, (manifest, *_) in cases.items():
        inputs = manifest["inputs"]
        cut = stitching.split_clips(
            range(inputs["frames"]), clip_frames=inputs["clip_length"], overlap_frames=inputs["overlap"]
        )
        assert [frames for _, frames in cut] == inputs["clips"], name


def test_tracks_are_the_published_ones(cases):
    for name, (manifest, arrays, _, stitched, _, closed) in cases.items():
        tolerance = manifest["tolerance"]
        assert sorted(closed) == arrays["track_ids"].tolist(), name
        found = np.stack([closed[i] for i in arrays["track_ids"].tolist()])
        assert np.abs(found - arrays["track_class_logits"]).max() <= tolerance["track_class_logits"], name
        per_frame = manifest["outputs"]["track_ids_with_a_mask_entry_per_frame"]
        assert [sorted(frame.track_ids.tolist()) for frame in stitched] == per_frame, name


def test_painted_tracks_have_published_classes_and_scores(cases):
    for name, (manifest, _, _, _, _, closed) in cases.items():
        things = manifest["inputs"]["thing_class_ids"]
        labels = {i: fusion.label_track(x, things, min_score=ClipInference().panoptic_score) for i, x in closed.items()}
        kept = {str(i): label for i, label in sorted(labels.items()) if label}
        outputs = manifest["outputs"]
        assert {i: label.category for i, label in kept.items()} == outputs["kept_track_categories"], name
        for i, score in outputs["kept_track_scores"].items():
            assert abs(kept[i].score - score) <= manifest["tolerance"]["scores"], (name, i)


def test_every_panoptic_frame_agrees(cases):
    for name, (manifest, arrays, _, _, fused, _) in cases.items():
        least = manifest["tolerance"]["pixels_equal_min"]
        assert [frame.stem for frame in fused] == list(map(str, range(manifest["inputs"]["frames"]))), name
        for index, frame in enumerate(fused):
            same_ids = np.mean(frame.track_ids == arrays["panoptic_instance_id"][index])
            same_classes = np.mean(frame.categories == arrays["panoptic_category"][index])
            assert min(same_ids, same_classes) >= least, (name, index, same_ids, same_classes)


def test_every_stuff_map_agrees(cases):
    for name, (manifest, arrays, geometry, stitched, _, _) in cases.items():
        stuff = stuff_of(manifest["inputs"]["thing_class_ids"])
        for frame in stitched:
            labels = upsampling.label_map(frame.semantic, geometry, classes=stuff)
            same = np.mean(labels == arrays["semantic_only"][frame.index])
            assert same >= manifest["tolerance"]["pixels_equal_min"], (name, frame.index, same)


class Replay:
    """In place of a network: gives the stored scores of every clip."""

    programs = {}

    def __init__(self, manifest, arrays):
        self._clips = dict(predictions(manifest, arrays))

    def fresh(self):
        return self

    def predict_sets(self, first, images):
        assert self._clips[first].semantic.shape[1] == len(images)
        return (self._clips[first],)


def test_the_predictor_gives_the_published_frames(cases, monkeypatch):
    """The same way as a user's video: frames are cut into clips, scores stitched, tracks painted."""
    for name, (manifest, arrays, geometry, *_) in cases.items():
        inputs = manifest["inputs"]
        infer = ClipInference(
            clip_frames=inputs["clip_length"], overlap_frames=inputs["overlap"],
            score_threshold=inputs["track_score_threshold"], max_tracks_per_clip=inputs["max_tracks_per_clip"],
            association_iou=inputs["association_iou_threshold"],
        )  # fmt: skip
        model = Replay(manifest, arrays)
        monkeypatch.setattr(clip_predictor, "ClipModel", lambda *_, model=model, **__: model)
        monkeypatch.setattr(ClipPredictor, "grid", staticmethod(lambda *_, geometry=geometry: geometry))
        is_thing = tuple(c in inputs["thing_class_ids"] for c in range(124))
        classes = ClassTable(("",) * 124, ((0, 0, 0),) * 124, is_thing)
        video = array_video(np.zeros((inputs["frames"], *geometry.original, 3), np.uint8))
        least = manifest["tolerance"]["pixels_equal_min"]
        frames = list(predict_video(video, ClipPredictor(None, {}, infer), classes))
        assert len(frames) == inputs["frames"]
        for index, frame in enumerate(frames):
            assert np.mean(frame.track_ids == arrays["panoptic_instance_id"][index]) >= least, (name, index)
            assert np.mean(frame.categories == arrays["panoptic_category"][index]) >= least, (name, index)
