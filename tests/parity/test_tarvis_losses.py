"""Losses, matching and point choice against the published system's numbers, with its points injected.

The stored masks are dense and overlap, and the stored predictions are logits. Here the logits become the mask features,
one channel per (set, query), with unit vectors as queries, so that the gradient of the features is that of the logits;
and every combination of overlapping masks becomes an id.
"""

import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import config, tasks
from vps_jax.losses import matcher, semantic_losses, set_loss
from vps_jax.losses.mask_losses import Objects
from vps_jax.ops import sampling
from vps_jax.tasks import terms as task_terms
from vps_jax.types import IGNORE, QueryOutputs

pytestmark = pytest.mark.parity


@pytest.fixture
def inputs(golden_dir, golden_is_whole):
    return golden_files.load(golden_dir, "tarvis_f_loss_inputs", whole=golden_is_whole)[1]


@pytest.fixture
def load(golden_dir, golden_is_whole):
    return functools.partial(golden_files.load, golden_dir, whole=golden_is_whole)


def unit_queries(groups: dict[str, np.ndarray]):
    """Logits `[d, b, q, t, h, w]` per group -> features `[b, t, h, w, c]` and unit embeds, c = all sets and queries."""
    channels = [np.moveaxis(a, 0, 1).reshape(a.shape[1], -1, *a.shape[3:]) for a in groups.values()]
    features = np.moveaxis(np.concatenate(channels, axis=1), 1, -1)
    eye, embeds, start = np.eye(features.shape[-1], dtype=np.float32), {}, 0
    for name, a in groups.items():
        rows = eye[start : start + a.shape[0] * a.shape[2]].reshape(a.shape[0], 1, a.shape[2], -1)
        embeds[name] = jnp.asarray(np.broadcast_to(rows, (*a.shape[:3], rows.shape[-1])))
        start += a.shape[0] * a.shape[2]
    return jnp.asarray(features), embeds


def split_channels(features, groups: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `unit_queries` for its features."""
    found, start = {}, 0
    for name, a in groups.items():
        part = np.moveaxis(np.asarray(features)[..., start : start + a.shape[0] * a.shape[2]], -1, 1)
        found[name] = np.moveaxis(part.reshape(a.shape[1], a.shape[0], a.shape[2], *a.shape[3:]), 0, 1)
        start += a.shape[0] * a.shape[2]
    return found


def batch_of(inputs) -> int:
    """One published loss call holds all items, so they are one group."""
    return inputs["pred_inst"].shape[1]


def objects_of(inputs) -> Objects:
    """The stored dense masks as one id per combination that occurs."""
    batch = batch_of(inputs)
    masks = [inputs[f"gt_instance_masks_item{i}"] for i in range(batch)]
    classes = [inputs[f"gt_instance_classes_item{i}"] for i in range(batch)]
    rows = max(map(len, masks)) + 1  # an empty row as well
    labels, valid = np.zeros((batch, rows), np.int32), np.zeros((batch, rows), bool)
    ids, tables = [], []
    for i, (mask, of_mask) in enumerate(zip(masks, classes, strict=True)):
        labels[i, : len(mask)], valid[i, : len(mask)] = of_mask, True
        combinations, inverse = np.unique(mask.reshape(len(mask), -1), axis=1, return_inverse=True)
        ids.append(inverse.reshape(mask.shape[1:]))
        tables.append(combinations.T)
    overlaps = np.zeros((batch, max(map(len, tables)), rows), bool)
    for i, table in enumerate(tables):
        overlaps[i, : len(table), : table.shape[1]] = table
    return Objects(*map(jnp.asarray, (np.stack(ids).astype(np.int32), labels, valid, overlaps)))


def instance_points(inputs, stored, rows: int):
    """Stored points of matched maps, in the order of the matcher's rows, as `[d, b, n, t, p, 2]`."""
    flat = inputs["points_inst"]
    sets, frames = inputs["pred_inst"].shape[0], inputs["pred_inst"].shape[3]
    points = np.zeros((sets, batch_of(inputs), rows, frames, *flat.shape[2:]), np.float32)
    for d in range(sets):
        start = 0
        for b in range(batch_of(inputs)):
            columns = stored[f"match_cols_layer{d}_item{b}"]
            own = flat[d, start : start + len(columns) * frames].reshape(len(columns), frames, *flat.shape[2:])
            points[d, b, columns] = own
            start += len(columns) * frames
        assert start == flat.shape[1]
    return jnp.asarray(points)


def points_of(inputs, stored, rows):
    sets, frames = inputs["pred_inst"].shape[0], inputs["pred_inst"].shape[3]
    matcher = inputs["points_matcher"].reshape(sets, batch_of(inputs), *inputs["points_matcher"].shape[2:])
    return {
        "matcher": jnp.asarray(matcher),
        "instance": instance_points(inputs, stored, rows),
        "semantic": jnp.asarray(inputs["points_sem"].reshape(sets, batch_of(inputs), frames, -1, 2)),
    }


def numbers_of(manifest, clips: int) -> config.Panoptic:
    told = manifest["settings"]
    settings = {"normalize_clips": clips}
    for key, value in told.items():
        if key.endswith("w_ce"):
            settings["semantic_weight"] = value
        if key.endswith("logit_regularization_loss"):
            settings["regularization"] = value
    settings["ignore_null_classes"] = told.get("ignore_null_class_logits", False)
    return config.Panoptic(**settings)


def compare(found: dict, manifest: dict, stored: dict):
    """Every array with a tolerance is there and within it."""
    told = {k: v["tolerance"] for k, v in manifest["arrays"].items() if "tolerance" in v and not k.startswith("match_")}
    assert set(found) == set(told)
    for name, tolerance in told.items():
        golden_files.assert_within(found[name], stored[name], tolerance, name)


def instance_terms(terms, prefix):
    return {
        f"{prefix}cls": terms["class"] / 2,
        f"{prefix}mask_ce": terms["mask"] / 5,
        f"{prefix}mask_dice": terms["dice"] / 5,
        f"{prefix}total": terms["class"] + terms["mask"] + terms["dice"],
    }


@pytest.mark.parametrize("name", ["tarvis_f_loss_panoptic_finetune_swinl", "tarvis_f_loss_panoptic_pretrain_swinl"])
def test_panoptic(name, inputs, load):
    manifest, stored = load(name)
    groups = {"instance": inputs["pred_inst"], "semantic": inputs["pred_sem"]}
    features, embeds = unit_queries(groups)
    objects = objects_of(inputs)
    labels = jnp.where(inputs["ignore"], IGNORE, inputs["gt_semantic"].astype(np.int32))
    points = points_of(inputs, stored, objects.valid.shape[1])
    task = tasks.make_task("panoptic", numbers_of(manifest, batch_of(inputs)), num_classes=inputs["pred_sem"].shape[2])

    def run(features, class_logits):
        outputs = QueryOutputs(features, embeds, class_logits, None)
        return task.set_terms(outputs, objects, labels, None, points=points)

    step = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    (total, terms), grads = step(features, jnp.asarray(inputs["pred_cls"]))
    found = instance_terms(terms, "loss_instance_")
    found["loss_semantic_ce"] = terms["semantic"] / task.numbers.semantic_weight
    if task.numbers.regularization:
        found["loss_semantic_reg"] = terms["regularization"] / 1e-3
    found["loss_semantic_total"] = terms["semantic"] + terms.get("regularization", 0)
    found["loss_total"] = sum(terms[name] for name in terms if not name.startswith(matcher.STATISTICS))
    of_logits = split_channels(grads[0], groups)
    found |= {"grad_inst": of_logits["instance"], "grad_sem": of_logits["semantic"], "grad_cls": grads[1]}
    compare(found, manifest, stored)
    np.testing.assert_allclose(total, np.sum(stored["loss_total"]), rtol=1e-5)


def test_instance(inputs, load):
    manifest, stored = load("tarvis_f_loss_instance")
    groups = {"instance": inputs["pred_inst"]}
    features, embeds = unit_queries(groups)
    objects = objects_of(inputs)
    points = points_of(inputs, stored, objects.valid.shape[1])
    numbers = config.Instance(normalize_clips=batch_of(inputs))

    def run(features, class_logits):
        outputs = QueryOutputs(features, embeds, class_logits, None)
        return task_terms.matched_terms(outputs, objects, numbers, task_terms.given_points(points))

    step = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    (total, terms), grads = step(features, jnp.asarray(inputs["pred_cls"]))
    found = instance_terms(terms, "loss_")
    found |= {"grad_inst": split_channels(grads[0], groups)["instance"], "grad_cls": grads[1]}
    compare(found, manifest, stored)


@pytest.mark.parametrize(
    "name",
    ["tarvis_f_loss_instance", "tarvis_f_loss_panoptic_finetune_swinl", "tarvis_f_loss_panoptic_pretrain_swinl"],
)
def test_matching(name, inputs, load):
    manifest, stored = load(name)
    features, embeds = unit_queries({"instance": inputs["pred_inst"]})
    objects = objects_of(inputs)
    points = points_of(inputs, stored, objects.valid.shape[1])["matcher"]
    told = {k: v.get("tolerance") for k, v in manifest["arrays"].items() if k.startswith("match_")}

    @jax.jit
    def run(features, class_logits):
        costs = matcher.matching_costs(features, embeds["instance"], class_logits, objects, points)
        args = features, embeds["instance"], class_logits, objects, points
        return costs, matcher.match(*args, weights=(2.0, 5.0, 5.0))

    costs, columns = run(features, jnp.asarray(inputs["pred_cls"]))
    total = costs.total(2.0, 5.0, 5.0)
    for d in range(columns.shape[0]):
        for b in range(batch_of(inputs)):
            case = f"layer{d}_item{b}"
            count = int(objects.valid[b].sum())
            for part, cost in (("C", total), ("cost_mask", costs.mask), ("cost_dice", costs.dice)):
                key = f"match_{part}_{case}"
                golden_files.assert_within(cost[d, b, :count].T, stored[key], told.pop(key), key)
            queries = np.asarray(columns[d, b])
            assert (queries[count:] == -1).all()
            order = np.argsort(queries[:count])  # rows of the stored assignment are queries, rising
            np.testing.assert_array_equal(queries[:count][order], stored[f"match_rows_{case}"])
            np.testing.assert_array_equal(order, stored[f"match_cols_{case}"])
            told.pop(f"match_rows_{case}"), told.pop(f"match_cols_{case}")
    assert not told


def test_semantic_of_the_instance_task(inputs, load):
    """With the stored labels, which the published code invents at edges; our own are checked below."""
    manifest, stored = load("tarvis_f_loss_semantic_instance_task")
    numbers = numbers_of(manifest, batch_of(inputs))
    sets, _, _, frames = inputs["pred_bgsem"].shape[:4]
    points = jnp.asarray(inputs["points_sem"].reshape(sets, batch_of(inputs), frames, -1, 2))

    def frame(x):
        maps, points, labels = x  # [k, h, w], [p, 2], [p]
        values = sampling.bilinear(jnp.moveaxis(maps, 0, -1), points)
        return jax.tree.map(jnp.squeeze, semantic_losses.point_sums(values[None], labels[None]))

    def run(logits, labels):  # [d, b, k, t, h, w], [d, b, t, p]
        inputs = jnp.moveaxis(logits, 3, 2), points, labels
        sums = jax.vmap(jax.vmap(jax.vmap(frame)))(inputs)  # [d, b, t]
        sums = jax.tree.map(lambda a: jnp.sum(a, axis=2), sums)
        ce = set_loss.group_mean(sums.ce, sums.labelled, numbers.normalize_clips)
        norm = set_loss.group_mean(sums.norm, sums.points, numbers.normalize_clips)
        total = numbers.semantic_weight * ce + 1e-3 * numbers.regularization * norm
        return jnp.sum(total), (ce, norm, total)

    step = jax.jit(jax.value_and_grad(run, has_aux=True))
    found = {}
    for suffix in ("", "_fp32"):
        labels = stored[f"point_labels{suffix}"].astype(np.int32).reshape(sets, batch_of(inputs), frames, -1)
        (_, (ce, norm, total)), grad = step(jnp.asarray(inputs["pred_bgsem"]), jnp.asarray(labels))
        found |= {f"loss_ce{suffix}": ce, f"loss_total{suffix}": total}
        if not suffix:
            found |= {"loss_reg": norm, "grad_bgsem": grad}
    compare(found, manifest, stored)


def test_nearest_labels_of_the_instance_task(inputs, load):
    """What we do instead of the published truncation (spec: tarvis 9.5): small instances on top, nearest pixel."""
    _, stored = load("tarvis_f_loss_semantic_instance_task")
    sets, _, _, frames = inputs["pred_bgsem"].shape[:4]
    points = inputs["points_sem"].reshape(sets, batch_of(inputs), frames, -1, 2)
    for b in range(batch_of(inputs)):
        masks, classes = inputs[f"gt_instance_masks_item{b}"], inputs[f"gt_instance_classes_item{b}"]
        painted = np.zeros(masks.shape[1:], np.int32)
        for i in np.argsort(-masks.sum(axis=(1, 2, 3)), kind="stable"):
            painted[masks[i]] = classes[i]
        for d in range(sets):
            found = sampling.nearest(jnp.asarray(painted), jnp.asarray(points[d, b]))
            expected = stored["point_labels_nearest"].reshape(sets, batch_of(inputs), frames, -1)[d, b]
            np.testing.assert_array_equal(found, expected)


def test_vos(inputs, load):
    manifest, stored = load("tarvis_f_loss_vos")
    pred = inputs["pred_vos"]
    sets, _, maps, frames = pred.shape[:4]
    groups = {"background_vos": pred[:, :, :1], "vos": pred[:, :, 1:]}
    features, embeds = unit_queries(groups)
    every = objects_of(inputs)
    shown = every.overlaps[:, :, : maps - 1]
    # the last column is the background: none of the objects shown
    overlaps = jnp.concatenate([shown, ~jnp.any(shown, axis=2, keepdims=True)], axis=2)
    valid = every.valid[:, : maps - 1]
    objects = Objects(every.ids, jnp.zeros_like(valid, jnp.int32), valid, overlaps)
    points = {"vos": jnp.asarray(inputs["points_vos"].reshape(sets, batch_of(inputs), maps, frames, -1, 2))}

    task = tasks.make_task("vos", {"normalize_clips": batch_of(inputs)})

    def run(features):
        outputs = QueryOutputs(features, embeds, None, None)
        return task.set_terms(outputs, objects, None, points=points, queries=1)

    (_, terms), grad = jax.jit(jax.value_and_grad(run, has_aux=True))(features)
    of_logits = split_channels(grad, groups)
    found = {"loss_ce": terms["mask"] / 5, "loss_dice": terms["dice"] / 5, "loss_total": sum(terms.values())}
    found["grad_vos"] = np.concatenate([of_logits["background_vos"], of_logits["vos"]], axis=2)
    compare(found, manifest, stored)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multiclass_plain"])
def test_point_sampler(kind, load):
    """Equal points as sets, by falling uncertainty; `multiclass` has the ignore map in channel 0."""
    _, stored = load("tarvis_f_point_sampler")
    logits = jnp.asarray(np.moveaxis(stored[f"{kind}_logits"], 1, -1))  # [n, h, w, k]
    first, second = (jnp.asarray(stored[f"{kind}_uniform_{name}"]) for name in ("first", "second"))

    def chosen(logits, first, second):
        values = sampling.bilinear(logits, first)
        if kind == "binary":
            uncertainty = sampling.binary_uncertainty(values[..., 0])
        else:
            uncertainty = sampling.class_uncertainty(values[..., 1 if kind == "multiclass" else 0 :])
        if kind == "multiclass":
            uncertainty = jnp.where(values[..., 0] != 0, semantic_losses.NEVER, uncertainty)
        return sampling.most_uncertain(uncertainty, first, second)

    found = np.asarray(jax.jit(chosen)(logits, first, second))
    for points, expected in zip(found, stored[f"{kind}_points"], strict=True):
        assert set(map(tuple, points.tolist())) == set(map(tuple, expected.tolist()))


def test_semantic_points_avoid_what_is_ignored(load):
    """The loss's own choice, on the stored sampler case that has an ignore map."""
    _, stored = load("tarvis_f_point_sampler")
    logits = np.moveaxis(stored["multiclass_logits"], 1, -1)
    first, second = (stored[f"multiclass_uniform_{name}"] for name in ("first", "second"))
    base = np.concatenate([second, first], axis=1)
    points = jax.jit(semantic_losses.uncertain_points, static_argnums=4)(
        logits[..., 1:], logits[..., 0] > 0, base, np.zeros((len(base), 2), np.float32), second.shape[1] * 4
    )
    for found, expected in zip(np.asarray(points), stored["multiclass_points"], strict=True):
        assert set(map(tuple, found.tolist())) == set(map(tuple, expected.tolist()))
