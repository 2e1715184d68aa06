"""Golden numbers of VidEoMT, through the converter; everything is read from the manifests."""

import json

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import videomt_rule

from vps_jax import models
from vps_jax.convert import videomt_files
from vps_jax.infer.video_segments import FrameRule
from vps_jax.models import vit

pytestmark = pytest.mark.parity
GROUP = "GOLDEN"  # a label set in official order: the files' classes have no names


def config_of(config: dict, **changes) -> dict:
    """Our `config.model` for the config of a manifest."""
    return {
        "name": "videomt",
        "size": "large",
        "semantic_groups": ((GROUP, config["num_labels"]),),
        "width": config["hidden_size"],
        "num_heads": config["num_attention_heads"],
        "trunk_blocks": config["num_hidden_layers"] - config["num_blocks"],
        "query_blocks": config["num_blocks"],
        "patch": config["patch_size"],
        "registers": config["num_register_tokens"],
        "mlp_ratio": config["mlp_ratio"],
        "norm_eps": config["layer_norm_eps"],
        "upscales": config["num_upscale_blocks"],
        "queries": config["num_queries"],
        "image_size": config["image_size"],
        "dtype": "float32",
        **changes,
    }


@pytest.fixture
def load(golden_dir, golden_is_whole):
    """Function from a case's name to its manifest, arrays, published keys and frames."""

    def load_case(name):
        manifest, arrays = golden_files.load(golden_dir, f"videomt_{name}", whole=golden_is_whole)
        keys = json.loads((golden_dir / f"videomt_{name}_keys.json").read_text())["keys"]
        with np.load(golden_dir / "videomt_inputs.npz") as inputs:
            return manifest, arrays, keys, inputs[f"{name}_u8"]

    return load_case


def build(manifest, keys, **changes):
    """Model and variables of the rule's weights."""
    config = config_of(manifest["config"], **changes)
    model = models.build(config)
    expected = models.shapes(model)
    filled = videomt_files.fill(videomt_rule.make_all(keys, manifest["seed"]), config, expected)
    assert filled.whole
    return model, filled.variables


def compare(manifest, arrays, ours):
    """Hold every stored array of our names against ours, by the manifest's rule."""
    for name in ours:
        entry, expected, found = manifest["arrays"][name], arrays[name], np.asarray(ours[name])
        assert found.shape == expected.shape, name
        if entry.get("compare") == "fraction":
            assert np.mean(found != expected) <= 5e-4, name
            continue
        gap = np.abs(found.astype(np.float64) - expected)
        assert gap.max() <= entry["atol"], f"{name}: {gap.max():.3g} over {entry['atol']:.3g}"
        rms = np.sqrt(np.mean(gap**2))
        assert rms <= entry["rms_tol"], f"{name}: rms {rms:.3g} over {entry['rms_tol']:.3g}"


def mask_logits(outputs, index=-1):
    """`[t, q, h4, w4]` of one set of a batch of one."""
    return jnp.einsum("thwc,tqc->tqhw", outputs.mask_features[index, 0], outputs.mask_embeds[index, 0])


def trunk_states(manifest, keys, frames, blocks: int):
    """Tokens `[t, s, c]` after the first blocks, by a model whose trunk ends there."""
    model, variables = build(manifest, keys)
    trunk = jax.tree.map(jnp.asarray, variables["params"]["trunk"])
    trunk["blocks"] = jax.tree.map(lambda a: a[:blocks], trunk["blocks"])
    short = model.clone(trunk=model.trunk.clone(depth=blocks))
    params = {**variables["params"], "trunk": trunk}
    first, patches = jax.jit(lambda p, x: short.apply({"params": p}, x, method="backbone_features"))(params, frames)
    return jnp.concatenate([first[0], patches.reshape(*patches.shape[1:2], -1, patches.shape[-1])], axis=1)


def carried(model, variables, frames):
    """The queries that each frame but the last leaves, `[t - 1, q, c]`, frame by frame."""
    step = jax.jit(lambda v, frame, queries: model.apply(v, frame[None, None], queries=queries).queries)
    queries, left = None, []
    for frame in frames[:-1]:
        queries = step(variables, frame, queries)
        left.append(queries[0])
    return jnp.stack(left)


@pytest.mark.parametrize("name", ["rect", "square"])
def test_states_and_predictions(load, name):
    manifest, arrays, keys, frames = load(name)
    model, variables = build(manifest, keys)

    @jax.jit
    def run(variables, frames):
        features = model.apply(variables, frames, method="backbone_features")
        states, _ = model.apply(variables, features, method="states")
        return states[0, 0], model.apply(variables, features, method="decode")

    states, outputs = run(variables, frames[None])
    ours = {"class_logits": outputs.class_logits[-1, 0], "mask_logits": mask_logits(outputs)}
    ours["injected_queries_from_frame_1"] = carried(model, variables, frames)
    stored = {int(name.rsplit("_", 1)[1]) for name in arrays if name.startswith("hidden_after_block_")}
    for block in sorted(stored):
        last = block == manifest["config"]["num_hidden_layers"]
        ours[f"hidden_after_block_{block}"] = states if last else trunk_states(manifest, keys, frames[None], block)
    if "embeddings" in arrays:
        ours["embeddings"] = trunk_states(manifest, keys, frames[None], 0)
    compare(manifest, arrays, ours)


def test_predictions_before_each_query_block(load):
    manifest, arrays, keys, frames = load("rect")
    sets = manifest["config"]["num_blocks"]
    model, variables = build(manifest, keys, auxiliary_sets=sets)
    outputs = jax.jit(lambda v, x: model.apply(v, x, train=True))(variables, frames[None])
    assert outputs.class_logits.shape[0] == sets + 1
    ours = {}
    for i in range(sets):
        ours[f"train_aux{i}_class_logits"] = outputs.class_logits[i, 0, jnp.array([0, -1])]
        ours[f"train_aux{i}_mask_logits"] = mask_logits(outputs, i)[jnp.array([0, -1]), :, 1::4, 1::4]
    compare(manifest, arrays, ours)


def test_resampled_tables_and_patch_kernel(golden_dir, golden_is_whole):
    manifest, arrays = golden_files.load(golden_dir, "videomt_resample", whole=golden_is_whole)
    seed, ours = manifest["seed"], {}
    for name, case in manifest["cases"].items():
        if name == "kernel16":
            kernel = videomt_rule.rng("kernel14", seed).standard_normal((5, 3, 14, 14)).astype(np.float32)
            ours[name] = videomt_files.resampled_kernel(kernel, 16)
        else:
            shape = (case["from"][0] * case["from"][1], case["channels"])
            table = videomt_rule.rng(name, seed).standard_normal(shape).astype(np.float32)
            ours[name] = vit.resampled_positions(table, tuple(case["to"]))
    assert set(ours) == set(manifest["arrays"])
    compare(manifest, arrays, ours)


def test_the_ports_decisions_on_single_frames(load):
    manifest, arrays, keys, frames = load("square")
    model, variables = build(manifest, keys)
    outputs = jax.jit(model.apply)(variables, frames[None])
    masks = jnp.moveaxis(mask_logits(outputs), 1, -1)  # [t, h4, w4, q]
    size = tuple(manifest["target_size"])
    told = manifest["panoptic_arguments"]
    odd = set(range(1, manifest["config"]["num_labels"], 2))
    rule = FrameRule(told["threshold"], told["overlap_mask_area_threshold"], odd)
    ours = {"panoptic": [], "instance": [], "semantic_scores": []}
    segments = {"panoptic": [], "instance": []}
    for classes, logits in zip(outputs.class_logits[-1, 0], masks, strict=True):
        ours["semantic_scores"].append(rule.semantic(classes, logits, size))
        for name, decide in (("panoptic", rule.panoptic), ("instance", rule._replace(score=0.5).instance)):
            ids, found = decide(classes, logits, size)
            ours[name].append(ids)
            segments[name].append([{"id": s.id, "label_id": s.category, "score": s.score} for s in found])
    ours = {name: np.stack(values) for name, values in ours.items()}
    scores = np.moveaxis(ours["semantic_scores"], -1, 1)
    ours |= {"semantic": scores.argmax(axis=1), "semantic_scores": scores[:, ::8, 3::16, 3::16]}
    compare(manifest, arrays, ours)
    for name, found in segments.items():
        for frame, expected in zip(found, manifest[f"{name}_segments"], strict=True):
            assert [(s["id"], s["label_id"]) for s in frame] == [(s["id"], s["label_id"]) for s in expected]
            np.testing.assert_allclose([s["score"] for s in frame], [s["score"] for s in expected], atol=2e-5)
