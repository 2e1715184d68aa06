"""Instances and objects through their predictor, against the published system frame by frame (tarvis_c, d, d2, e)."""

import golden_files
import numpy as np
import pytest
import tarvis_golden

from vps_jax.config import ClipInference
from vps_jax.infer.clip_model import ClipModel, geometry, preprocess
from vps_jax.infer.clip_predictor import ClipPredictor
from vps_jax.infer.object_clips import Follower
from vps_jax.media.video import Frame, Video
from vps_jax.types import GivenObject

pytestmark = pytest.mark.parity


def infer_of(images, task, **settings):
    """Frames keep their size; the clip is as long as the case."""
    short, long = sorted(images.shape[1:3])
    sizes = {"short_side_px": short, "max_side_px": long, "clip_frames": len(images), "overlap_frames": 1}
    return ClipInference(task=task, **sizes, **settings)


def video_of(images, stems, objects=None) -> Video:
    frames = [Frame(stem, image, i / 6) for i, (stem, image) in enumerate(zip(stems, images, strict=True))]
    size = images.shape[1:3]
    return Video("v", len(frames), 6.0, lambda: iter(frames), lambda: size, tuple(stems), objects=objects)


def compare(found: dict, manifest: dict, arrays: dict) -> None:
    """Arrays whose entries of -1000 must be so exactly, the others within the tolerance for one's own masks."""
    for name, ours in found.items():
        entry = manifest["arrays"][name]
        ours, theirs = tarvis_golden.sliced(ours, entry), arrays[name]
        unset = theirs == -1000
        np.testing.assert_array_equal(ours[unset], -1000)
        golden_files.assert_within(ours[~unset], theirs[~unset], entry["tolerance_free"], name)


def test_instances(golden_dir, golden_is_whole):
    manifest, arrays = golden_files.load(golden_dir, "tarvis_c_ytvis_decoder", whole=golden_is_whole)
    images = tarvis_golden.clip_of(golden_dir, manifest)
    queries = arrays["class_logits"].shape[2]
    infer = infer_of(images, "instance", semantic_group="YOUTUBE_VIS", score_threshold=0.0, max_tracks_per_clip=queries)
    variables = tarvis_golden.variables(golden_dir, manifest["seed"])
    predictor = ClipPredictor(tarvis_golden.network(), variables, infer)
    frames = list(predictor.stream(video_of(images, list(map(str, range(len(images)))))))
    assert all(frame.tracks.ids.tolist() == list(range(1, queries + 1)) for frame in frames)  # all, in query order
    (closed,) = [frame.tracks.closed for frame in frames if frame.tracks.closed]
    classes = np.stack([track.class_logits for track in sorted(closed, key=lambda track: track.track_id)])
    golden_files.assert_within(
        classes, arrays["class_logits"][-1, 0], manifest["arrays"]["class_logits"]["tolerance_free"], "classes"
    )
    entry, semantic = (manifest["arrays"][name] for name in ("mask_logits", "pred_semantic_seg_logits"))
    for t, frame in enumerate(frames):
        masks = tarvis_golden.sliced(frame.tracks.masks, entry)
        expected = arrays["mask_logits"][-1, 0, :queries, t]
        golden_files.assert_within(masks, expected, entry["tolerance_free"], f"masks {t}")
        scores = tarvis_golden.sliced(frame.scores.semantic, semantic)
        expected = arrays["pred_semantic_seg_logits"][1:, t]  # without the background
        golden_files.assert_within(scores, expected, semantic["tolerance_free"], f"semantic {t}")


def shown_objects(vos, arrays):
    """The objects of a case, as a user gives them."""
    for row, (number, first) in enumerate(zip(vos["instance_ids"], vos["first_frame_of_object"], strict=True)):
        if "ref_masks" in arrays:
            yield GivenObject(number, str(first), mask=arrays["ref_masks"][row].astype(bool))
        else:
            yield GivenObject(number, str(first), point=arrays["point_coords_yx"][row])


@pytest.mark.parametrize("case", ["tarvis_d_vos_masks", "tarvis_e_vos_points"])
def test_objects_from_masks_and_points(case, golden_dir, golden_is_whole):
    manifest, arrays = golden_files.load(golden_dir, case, whole=golden_is_whole)
    images, vos = tarvis_golden.clip_of(golden_dir, manifest), manifest["vos"]
    objects = list(shown_objects(vos, arrays))
    variables = tarvis_golden.variables(golden_dir, manifest["seed"])
    predictor = ClipPredictor(tarvis_golden.network(), variables, infer_of(images, "vos"))
    stems = list(map(str, vos["clip_frames"]))
    frames = list(predictor.stream(video_of(images, stems, lambda: objects)))
    assert [frame.stem for frame in frames] == stems
    assert all(frame.tracks.ids.tolist() == vos["instance_ids"] for frame in frames)
    compare({"pred_vos_logits": np.stack([frame.tracks.masks for frame in frames], axis=1)}, manifest, arrays)


def test_the_clip_that_follows_starts_from_predicted_masks(golden_dir, golden_is_whole):
    manifest, arrays = golden_files.load(golden_dir, "tarvis_d2_vos_second_clip", whole=golden_is_whole)
    images, vos = tarvis_golden.clip_of(golden_dir, manifest), manifest["vos"]
    infer = infer_of(images, "vos")
    sizes = geometry(images.shape[1:3], short_side=infer.short_side_px, max_side=infer.max_side_px)
    variables = tarvis_golden.variables(golden_dir, manifest["seed"])
    model = ClipModel(tarvis_golden.network(), variables, [("vos", None)], chunk=2)
    start, first = vos["previous_frames"][0], vos["clip_frames"][0]
    follower = Follower(model, [GivenObject(i, str(start)) for i in vos["previous_instance_ids"]], sizes)
    follower._before = 0, arrays["previous_clip_logits"]
    begins = {str(frame): frame - start for frame in (*vos["previous_frames"], *vos["clip_frames"])}
    new = list(follower.follow(first - start, [preprocess(image, sizes) for image in images], begins))
    assert len(new) == len(set(vos["clip_frames"]) - set(vos["previous_frames"]))
    logits = dict(zip(vos["previous_instance_ids"], follower._before[1], strict=True))
    assert all((logits[i] == -1000).all() for i in vos["lost_instance_ids"])
    compare({"pred_vos_logits": np.stack([logits[i] for i in vos["instance_ids"]])}, manifest, arrays)
    assert np.array_equal(new[-1], follower._before[1][:, -1])
