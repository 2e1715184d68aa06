"""Mask2Former's set loss against the published system's numbers, with its random draws injected."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vita_rule

from vps_jax.losses.mask_losses import Objects, uncertain_points
from vps_jax.losses.matcher import match, matching_costs
from vps_jax.tasks import make_task
from vps_jax.tasks.mask_classification import class_masks
from vps_jax.types import IGNORE, QueryOutputs

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def case(golden_dir, golden_is_whole):
    manifest, stored = golden_files.load(golden_dir, "vit_adapter_loss", whole=golden_is_whole)
    sizes, seed = manifest["input"], manifest["seed"]
    d, b, q, h, w = (sizes[key] for key in "LBQHW")
    classes = 2 * vita_rule.feature("loss_cls", seed, (d, b, q, manifest["arrays"]["grad_cls"]["shape"][-1]))
    masks = 3 * vita_rule.feature("loss_mask", seed, (d, b, q, h // 4, w // 4))
    labels = np.stack([vita_rule.label_map(f"labels/{i}", seed, h, w) for i in range(b)]).astype(np.int32)
    labels = jnp.asarray(np.where(labels == 255, IGNORE, labels))[:, None]  # [b, 1, h, w]
    # logits become features, one channel per (set, query), with unit vectors as queries
    features = np.moveaxis(masks, 0, 1).reshape(b, d * q, h // 4, w // 4)
    embeds = np.broadcast_to(np.eye(d * q, dtype=np.float32).reshape(d, 1, q, d * q), (d, b, q, d * q))
    outputs = QueryOutputs(
        jnp.asarray(np.moveaxis(features, 1, -1))[:, None], {"object": jnp.asarray(embeds)}, None, None
    )
    targets = class_masks(labels, classes.shape[-1] - 1)
    return manifest, stored, outputs._replace(class_logits=jnp.asarray(classes)), targets


def limits(manifest, name):
    entry = manifest["arrays"][name]
    return entry["atol"], entry["rms_tol"]


def assert_held(found, stored, manifest, name):
    gap = np.abs(np.asarray(found, np.float64) - stored[name])
    assert gap.shape == stored[name].shape
    atol, rms = limits(manifest, name)
    assert gap.max() <= atol and np.sqrt(np.mean(gap**2)) <= rms, name


def matcher_points(manifest):
    sizes = manifest["input"]
    draws = [
        [vita_rule.points(f"points/layer{d}/match{b}", manifest["seed"], (1, manifest["num_points"], 2))[0]]
        for d in range(sizes["L"])
        for b in range(sizes["B"])
    ]
    return jnp.asarray(np.concatenate(draws).reshape(sizes["L"], sizes["B"], -1, 2))


def objects_of(targets) -> Objects:
    return Objects(targets.instance_ids, targets.instance_classes, targets.instance_classes >= 0)


@pytest.fixture(scope="module")
def columns(case):
    manifest, _, outputs, targets = case
    args = outputs.mask_features, outputs.mask_embeds["object"], outputs.class_logits, objects_of(targets)
    return np.asarray(
        jax.jit(match, static_argnames="weights")(*args, matcher_points(manifest), weights=(2.0, 5.0, 5.0))
    )


def test_costs_and_assignment(case, columns):
    manifest, stored, outputs, targets = case
    args = outputs.mask_features, outputs.mask_embeds["object"], outputs.class_logits, objects_of(targets)
    costs = jax.jit(matching_costs)(*args, matcher_points(manifest)).total(2.0, 5.0, 5.0)
    for d in range(columns.shape[0]):
        for b in range(columns.shape[1]):
            present = np.flatnonzero(targets.instance_classes[b] >= 0)
            assert_held(costs[d, b, present].T, stored, manifest, f"cost/layer{d}/img{b}")
            queries = columns[d, b, present]
            order = np.argsort(queries)
            np.testing.assert_array_equal([queries[order], order], stored[f"match/layer{d}/img{b}"])


def mask_points(manifest, outputs, targets, columns):
    """The points that the stored draws lead to, `[d, b, k, 1, p, 2]`; matched masks are ordered by (image, query)."""
    sizes, seed, count = manifest["input"], manifest["seed"], manifest["num_points"]
    (d_count, b_count, k), q = columns.shape, sizes["Q"]
    points = np.zeros((d_count, b_count, k, 1, count, 2), np.float32)
    shapes = {draw["name"]: draw["shape"] for draw in manifest["draws"]}
    for d in range(d_count):
        over, rest = (
            vita_rule.points(f"points/layer{d}/{n}", seed, shapes[f"points/layer{d}/{n}"]) for n in ("over", "rand")
        )
        rows = sorted((b, columns[d, b, c], c) for b in range(b_count) for c in np.flatnonzero(columns[d, b] >= 0))
        features = np.asarray(outputs.mask_features[:, 0])
        logits = np.stack([features[b, ..., d * q + query] for b, query, _ in rows])
        # one base per map and no shift: fresh points first
        base, shift = jnp.asarray(np.concatenate([rest, over], axis=1)), jnp.zeros((len(rows), 1, 1, 2))
        chosen = uncertain_points(jnp.asarray(logits)[:, None, None], base, shift, count)
        for (b, _, c), p in zip(rows, np.asarray(chosen), strict=True):
            points[d, b, c] = p[0]
    return jnp.asarray(points)


def test_loss_and_gradients(case, columns):
    manifest, stored, outputs, targets = case
    points = {"matcher": matcher_points(manifest), "instance": mask_points(manifest, outputs, targets, columns)}
    task = make_task("mask_classification", num_classes=targets.instance_classes.shape[1])

    def run(features, class_logits):
        changed = outputs._replace(mask_features=features, class_logits=class_logits)
        return task.set_terms(changed, targets, None, points=points)

    step = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    (total, terms), (of_features, of_classes) = step(outputs.mask_features, outputs.class_logits)
    assert_held(total, stored, manifest, "total")
    last = manifest["input"]["L"] - 1
    for d in range(last + 1):
        prefix = "loss/" if d == last else f"loss/d{d}."
        for ours, theirs in (("class", "cls"), ("mask", "mask"), ("dice", "dice")):
            assert_held(terms[ours][d], stored, manifest, f"{prefix}loss_{theirs}")
    assert_held(of_classes, stored, manifest, "grad_cls")
    sizes = manifest["input"]
    of_masks = np.moveaxis(np.asarray(of_features[:, 0]), -1, 1).reshape(
        sizes["B"], sizes["L"], sizes["Q"], *of_features.shape[2:4]
    )
    assert_held(np.moveaxis(of_masks, 0, 1), stored, manifest, "grad_mask")
    told = {name for name, entry in manifest["arrays"].items() if not name.startswith(("cost/", "match/"))}
    ours = {f"loss/{p}loss_{t}" for p in ["", *(f"d{d}." for d in range(last))] for t in ("cls", "mask", "dice")}
    assert told == ours | {"total", "grad_cls", "grad_mask"}
