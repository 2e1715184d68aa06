"""HOTA and IDF1 against slow twins written from TrackEval's definitions, and cases worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from label_scenes import CLASSES, frame, video

from vps_jax.evaluation import counts as counting
from vps_jax.evaluation.hota import HigherOrderTrackingAccuracy
from vps_jax.evaluation.idf1 import IdentityF1


def random_scene(seed):
    """Up to 6 frames of 4x6 pixels with four things of two classes, void, a crowd and swapped ids."""
    rng = np.random.default_rng(seed)
    t = rng.integers(1, 7)
    maps = np.repeat(np.repeat(rng.integers(0, 6, (t, 2, 3)), 2, axis=1), 2, axis=2)
    prediction = np.where(rng.random(maps.shape) < 0.75, maps, rng.integers(0, 6, maps.shape))
    if t > 2:
        late = prediction[t // 2 :]
        late[...] = np.array([0, 1, 3, 2, 4, 5])[late]
    classes = {1: 0, 2: 2, 3: 2, 4: 3, 5: 2}
    crowd = (5,) if seed % 3 == 0 else ()
    return video(maps, classes, crowd=crowd), video(prediction, classes)


def slow_frames(truth, prediction, c):
    """Per frame: true ids, predicted ids and IoU of every pair of one class, pixel by pixel."""
    frames = []
    for one, other in zip(truth, prediction, strict=True):
        rows = [list(zip(*(column.tolist() for column in side.segments[:3]), strict=True)) for side in (one, other)]
        true = [i for i, category, crowd in rows[0] if category == c and not crowd]
        forgiving = (one.pixels == 0) | np.isin(one.pixels, [i for i, k, crowd in rows[0] if k == c and crowd])
        iou, predicted = {}, []
        for p in [i for i, category, _ in rows[1] if category == c]:
            mask = other.pixels == p
            found = {g: (mask & (one.pixels == g)).sum() / (mask | (one.pixels == g)).sum() for g in true}
            if (mask & forgiving).sum() / mask.sum() > 0.5 and not any(value >= 0.5 for value in found.values()):
                continue
            predicted.append(p)
            iou |= {(g, p): float(value) for g, value in found.items()}
        frames.append((true, predicted, iou))
    return frames


def assignments(rows, columns):
    """Every way of giving rows to columns, as sets of pairs."""
    if len(rows) > len(columns):
        return [[(g, p) for p, g in pairs] for pairs in assignments(columns, rows)]
    return [list(zip(rows, chosen, strict=True)) for chosen in itertools.permutations(columns, len(rows))]


def slow_hota(truth, prediction, c):
    """HOTA of one class in one video by its definition, or None when nothing is there."""
    frames = slow_frames(truth, prediction, c)
    often = [{}, {}]
    overlap = {}
    for true, predicted, iou in frames:
        for side, ids in enumerate((true, predicted)):
            for i in ids:
                often[side][i] = often[side].get(i, 0) + 1
        for g, p in itertools.product(true, predicted):
            union = sum(iou[g, q] for q in predicted) + sum(iou[h, p] for h in true) - iou[g, p]
            overlap[g, p] = overlap.get((g, p), 0.0) + (iou[g, p] / union if union > 1e-15 else 0.0)
    if not any(often):
        return None
    agreement = {(g, p): v / (often[0][g] + often[1][p] - v) for (g, p), v in overlap.items()}
    chosen = []
    for true, predicted, iou in frames:
        best = max(
            assignments(true, predicted), key=lambda pairs: sum(agreement[pair] * iou[pair] for pair in pairs),
        )  # fmt: skip
        chosen.append([(pair, iou[pair]) for pair in best])
    values = []
    for alpha in [0.05 * i for i in range(1, 20)]:
        pairs = [pair for one in chosen for pair, value in one if value >= alpha - 1e-12]
        tp = len(pairs)
        fn, fp = sum(often[0].values()) - tp, sum(often[1].values()) - tp
        share = [pairs.count(pair) / (often[0][pair[0]] + often[1][pair[1]] - pairs.count(pair)) for pair in pairs]
        values.append(math.sqrt(tp / max(1, tp + fn + fp) * sum(share) / max(1, tp)))
    return 100 * sum(values) / len(values)


def slow_idf1(truth, prediction, c):
    frames = slow_frames(truth, prediction, c)
    ids = [sorted({i for one in frames for i in one[side]}) for side in (0, 1)]
    numbers = [sum(len(one[side]) for one in frames) for side in (0, 1)]
    if not sum(numbers):
        return None
    tp = max(sum(iou.get(pair, 0) >= 0.5 for *_, iou in frames for pair in pairs) for pairs in assignments(*ids))
    return 100 * tp / (tp + (numbers[0] - tp) / 2 + (numbers[1] - tp) / 2)


def score(metric, truth, prediction):
    state = metric(CLASSES)
    state.update("v", counting.count_video(truth, prediction))
    return state.compute()


@pytest.mark.parametrize("seed", range(50))
def test_both_equal_the_definitions(seed):
    truth, prediction = random_scene(seed)
    for metric, name, slow in ((HigherOrderTrackingAccuracy, "hota", slow_hota), (IdentityF1, "idf1", slow_idf1)):
        expected = {str(c): slow(truth, prediction, c) for c in (2, 3)}
        expected = {c: value for c, value in expected.items() if value is not None}
        result = score(metric, truth, prediction)
        assert {c: row[name] for c, row in result["per_class"].items()} == pytest.approx(expected, abs=1e-9)
        assert result[name] == (pytest.approx(np.mean(list(expected.values()))) if expected else None)
        assert result["per_video"]["v"][name] == (pytest.approx(result[name]) if expected else None)


def test_hand_worked_identity_switch():
    """One thing through four frames, found exactly, whose id changes after the third."""
    truth = [frame([[7, 7]], {7: 2})] * 4
    prediction = [frame([[8, 8]], {8: 2})] * 3 + [frame([[9, 9]], {9: 2})]
    hota = score(HigherOrderTrackingAccuracy, truth, prediction)
    # 3 of 4 frames share a track of 3, 1 of 4 one of 1
    assert hota["assa"] == pytest.approx(100 * (3 * 3 / 4 + 1 / 4) / 4)
    assert (hota["deta"], hota["loca"]) == (pytest.approx(100), pytest.approx(100))
    assert hota["hota"] == pytest.approx(100 * math.sqrt(10 / 16))
    assert score(IdentityF1, truth, prediction)["idf1"] == pytest.approx(75)


def test_nothing_to_track_is_no_score():
    stuff = [frame([[1, 1]], {1: 0})]
    assert score(HigherOrderTrackingAccuracy, stuff, stuff)["hota"] is None
    assert score(IdentityF1, stuff, stuff)["idf1"] is None


def test_a_prediction_on_crowd_is_not_wrong():
    truth = [frame([[7, 5, 5]], {7: 2, 5: 2}, crowd=(5,))]
    prediction = [frame([[8, 9, 9]], {8: 2, 9: 2})]
    assert score(HigherOrderTrackingAccuracy, truth, prediction)["hota"] == pytest.approx(100)
    assert score(IdentityF1, truth, prediction)["idf1"] == 100


@pytest.mark.parametrize("metric", [HigherOrderTrackingAccuracy, IdentityF1])
def test_merge_of_parts_equals_the_whole(metric):
    scenes = {f"v{seed}": counting.count_video(*random_scene(seed)) for seed in range(6)}
    whole, parts = metric(CLASSES), [metric(CLASSES) for _ in range(2)]
    for i, (name, counts) in enumerate(reversed(scenes.items())):
        whole.update(name, counts)
        parts[i % 2].update(name, counts)
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()
    with pytest.raises(ValueError, match="twice"):
        parts[0].merge(parts[1])
