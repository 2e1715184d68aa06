"""Golden numbers of ViT-Adapter and its Mask2Former head, through the converter; everything is read from manifests."""

import functools
import json

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import vita_rule
from flax import traverse_util

from vps_jax.convert import resampled_tables, rules, vit_adapter_keys
from vps_jax.models import mask2former, mask_decoder, pixel_decoder, vit
from vps_jax.models.adapter_layers import Upsample2x
from vps_jax.models.layers import LayerNorm
from vps_jax.models.spatial_prior import BatchNorm
from vps_jax.ops.position import sine_2d
from vps_jax.ops.resize import resize
from vps_jax.tasks import make_task

pytestmark = pytest.mark.parity
HEAD_OF_BACKBONE_FILES = {
    "feat_channels": 64, "num_classes": 1, "num_queries": 1, "enc_layers": 1, "enc_heads": 1, "enc_ffn": 1,
    "dec_layers": 3, "dec_heads": 1, "dec_ffn": 1,
}  # fmt: skip


def pair(side) -> tuple[int, int]:
    """Height and width of what a manifest states as one side or as `[height, width]`."""
    return (side, side) if np.isscalar(side) else tuple(side)


def grid_of(config: dict) -> tuple[int, int]:
    """Patches of a BEiT's images."""
    return tuple(side // vit_adapter_keys.PATCH for side in config_of(config)["image_size"])


def config_of(config: dict) -> dict:
    """Our `config.model` for the config of a manifest: a backbone, a head or both."""
    head = config.get("head", config if "feat_channels" in config else HEAD_OF_BACKBONE_FILES)
    trunk = config.get("backbone", config if "embed_dim" in config else BACKBONE_OF_HEAD_FILES)
    beit = trunk["type"] == "BEiTAdapter"
    side = trunk["img_size"] if beit else trunk["pretrain_size"]
    depth = trunk["depth"]
    assert [i for a, b in trunk["interaction_indexes"] for i in range(a, b + 1)] == list(range(depth))
    sizes = np.broadcast_to(trunk.get("window_size", 14), depth)
    windows = [int(s) if on else 0 for s, on in zip(sizes, trunk.get("window_attn", [False] * depth), strict=True)]
    return {
        "name": "mask2former",
        "size": "beit_small_128",
        "beit": beit,
        "image_size": pair(side),
        "semantic_groups": (("VSPW", head["num_classes"]),),
        "width": trunk["embed_dim"],
        "trunk_heads": trunk["num_heads"],
        "groups": tuple(b - a + 1 for a, b in trunk["interaction_indexes"]),
        "mlp_ratio": trunk["mlp_ratio"],
        "windows": tuple(windows) if any(windows) else (),
        "prior_width": trunk["conv_inplane"],
        "deform_heads": trunk["deform_num_heads"],
        "deform_points": trunk["n_points"],
        "deform_ratio": trunk["deform_ratio"],
        "ffn_ratio": trunk["cffn_ratio"],
        "hidden_dim": head["feat_channels"],
        "queries": head["num_queries"],
        "num_heads": head["dec_heads"],
        "encoder_layers": head["enc_layers"],
        "decoder_layers": head["dec_layers"],
        "ffn_dim": head["dec_ffn"],
    }


BACKBONE_OF_HEAD_FILES = {
    "type": "BEiTAdapter", "img_size": 64, "embed_dim": 192, "depth": 4, "num_heads": 3, "mlp_ratio": 1,
    "interaction_indexes": [[0, 0], [1, 1], [2, 2], [3, 3]], "conv_inplane": 8, "deform_num_heads": 6, "n_points": 4,
    "deform_ratio": 0.5, "cffn_ratio": 0.25,
}  # fmt: skip


@pytest.fixture
def load(golden_dir, golden_is_whole):
    """Function from a case's name to its manifest, arrays and published keys."""

    def load_case(name):
        manifest, arrays = golden_files.load(golden_dir, f"vit_adapter_{name}", whole=golden_is_whole)
        keys = json.loads((golden_dir / f"vit_adapter_{name}_keys.json").read_text())["keys"]
        return manifest, arrays, keys

    return load_case


def build(manifest, keys):
    """Model and variables of the parts (backbone, head) that the keys cover."""
    config = config_of(manifest["config"])
    model = mask2former.from_config(config)
    image = jnp.zeros((1, 1, *config["image_size"], 3))
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    table = vit_adapter_keys.table(config)
    if not any(key.startswith("decode_head.") for key in keys):
        table = vit_adapter_keys.backbone_table(config)
        expected = {name: {"backbone": tree["backbone"]} for name, tree in expected.items()}
    if not any(key.startswith("backbone.") for key in keys):
        table = vit_adapter_keys.head_table(config)
        expected = {"params": {name: tree for name, tree in expected["params"].items() if name != "backbone"}}
    return model, rules.apply(table, vita_rule.make_all(keys, manifest["seed"]), expected)


def compare(manifest, arrays, ours):
    """Hold every stored array against ours of the same name, by the manifest's rule."""
    for name, entry in manifest["arrays"].items():
        expected, found = arrays[name], np.asarray(ours[name])
        assert found.shape == expected.shape, name
        if entry.get("compare") == "fraction":
            assert np.mean(found != expected) <= 2e-4, name
            continue
        gap = np.abs(found.astype(np.float64) - expected)
        assert gap.max() <= entry["atol"], f"{name}: {gap.max():.3g} over {entry['atol']:.3g}"
        rms = np.sqrt(np.mean(gap**2))
        assert rms <= entry["rms_tol"], f"{name}: rms {rms:.3g} over {entry['rms_tol']:.3g}"


def channels_first(x):
    """`[..., h, w, c]` to `[..., c, h, w]`."""
    return jnp.moveaxis(jnp.asarray(x), -1, -3)


def channels_last(x):
    """`[..., c, h, w]` to `[..., h, w, c]`."""
    return jnp.asarray(np.moveaxis(x, -3, -1))


def batch_first(x):
    """`[n, b, c]` to `[b, n, c]` and back."""
    return jnp.swapaxes(jnp.asarray(x), 0, 1)


def feature(name, manifest, shape):
    return vita_rule.feature(name, manifest["seed"], tuple(shape))


def image_of(manifest):
    """The normalised image of a manifest, `[b, h, w, 3]`."""
    call = manifest["input_call"]
    assert call["function"] == "image"
    size = (call[name] for name in ("batch", "height", "width", "variant"))
    return channels_last(vita_rule.image(manifest["seed"], *size))


def pixels_of(model, manifest):
    """The same image as the bytes that it was made of."""
    pixels = np.asarray(image_of(manifest), np.float64) * model.pixel_std + model.pixel_mean
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-3
    return jnp.asarray(np.rint(pixels), jnp.uint8)


def vit_block_case(manifest, x):
    """Block 0 of the plain ViT; its file of keys is not needed, the names follow from the table."""
    config = config_of(dict(manifest["config"]["backbone"], type="ViTAdapter", pretrain_size=224))
    ratio = float(config["mlp_ratio"])
    block = vit.Block(config["trunk_heads"], grid_of(manifest["config"]), beit=False, mlp_ratio=ratio)
    expected = jax.eval_shape(lambda: block.init(jax.random.key(0), x))["params"]
    prefix, ours = "backbone.blocks.0.", "params/backbone/blocks/"
    table = [r for r in vit_adapter_keys.backbone_table(config).rules if r.key.startswith(prefix)]
    leaves = traverse_util.flatten_dict(expected, sep="/")
    shapes = {r.key: r.transform.to_published(np.empty(leaves[r.path.removeprefix(ours)].shape)).shape for r in table}
    table = rules.Table(tuple(r._replace(path=r.path.removeprefix(ours), index=None) for r in table))
    params = rules.apply(table, vita_rule.make_all(shapes, manifest["seed"]), expected)
    return block.apply({"params": params}, x)


def run_layer(variables, layer, path, *args, row=None, **kwargs):
    """Apply one layer with the variables at `path`, or with one row of them where they are stacked."""
    own = {}
    for collection, tree in variables.items():
        part = functools.reduce(lambda t, name: t.get(name, {}), path.split("/"), tree)
        own[collection] = part if row is None else jax.tree.map(lambda a: a[row], part)
    return layer.apply(own, *args, **kwargs)


def test_single_layers(load):
    manifest, arrays, keys = load("layers")
    model, variables = build(manifest, keys)
    inputs = manifest["inputs"].items()
    x = {k: jnp.asarray(np.float32(i["scale"]) * feature(k, manifest, i["shape"])) for k, i in inputs}
    grid = grid_of(manifest["config"])
    shapes = ((2 * grid[0], 2 * grid[1]), grid, (grid[0] // 2, grid[1] // 2))
    interaction = model.backbone.interactions(shapes, train=False)[0]
    decoder = model.pixel_decoder
    encoder_layer = pixel_decoder.EncoderLayer(decoder.num_heads, decoder.ffn_dim, shapes[::-1])
    decoder_layer = mask_decoder.DecoderLayer(model.num_heads, model.ffn_dim)
    queries, memory = x["dq"].shape[0], x["dk"].shape[0]
    attend = vita_rule.points("dmask", manifest["seed"], (1, queries, memory)) >= 0.5
    conv = functools.partial(pixel_decoder.ConvNorm, decoder.width)

    x = {k: batch_first(v) if k in ("enc", "encpos", "dq", "dqp", "dk", "dkp") else v for k, v in x.items()}
    x |= {k: channels_last(x[k]) for k in ("lf1", "lf4", "lm1")}

    def layers(variables, x):
        run = functools.partial(run_layer, variables)
        memories = (x["dq"], x["dqp"], x["dk"], x["dkp"], attend)
        return {
            "beit_block": run(interaction.blocks[0], "backbone/blocks", x["tok65"], row=0),
            "vit_block": vit_block_case(manifest, x["tok64"]),
            "injector": run(interaction.injector, "backbone/injectors", x["tok64"], x["pyr"], row=0),
            "extractor": run(interaction.extractor, "backbone/extractors", x["pyr"], x["tok64"], row=0),
            "up": channels_first(run(Upsample2x(model.backbone.width), "backbone/up", x["lf1"])),
            "norm1": channels_first(run(BatchNorm(), "backbone/norm1", x["lf1"], train=False)),
            "input_conv0": channels_first(run(conv(use_bias=True), "pixel_decoder/input_0", x["lf4"])),
            "lateral": channels_first(run(conv(), "pixel_decoder/lateral", x["lf1"])),
            "output_conv": channels_first(jax.nn.relu(run(conv(kernel=3), "pixel_decoder/output", x["lm1"]))),
            "encoder_layer": batch_first(run(encoder_layer, "pixel_decoder/encoder", x["enc"], x["encpos"], row=0)),
            "decoder_layer": batch_first(run(decoder_layer, "decoder/rounds/level_0", *memories, row=0)),
            "post_norm": batch_first(run(LayerNorm(), "heads/norm", x["dq"])),
            "sine": channels_first(sine_2d(*arrays["sine"].shape[2:], arrays["sine"].shape[1]))[None],
        }

    compare(manifest, arrays, jax.jit(layers)(variables, x))  # one program compiles faster than many small ones


def published_beit_block(weights: dict, x: np.ndarray, heads: int, grid: tuple[int, int]) -> np.ndarray:
    """Block 0 of a BEiT in float64, after the published code: tokens `[s, c]`, class token first."""
    w = {k.removeprefix("backbone.blocks.0."): np.float64(v) for k, v in weights.items() if ".blocks.0." in k}
    count, width = x.shape

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]

    bias = np.concatenate([w["attn.q_bias"], np.zeros(width), w["attn.v_bias"]])
    qkv = norm(x, "norm1") @ w["attn.qkv.weight"].T + bias
    q, k, v = qkv.reshape(count, 3, heads, -1).transpose(1, 2, 0, 3)
    scores = q @ k.swapaxes(1, 2) / np.sqrt(width // heads)
    table = w["attn.relative_position_bias_table"]
    for i in range(count):
        for j in range(count):
            if i and j:
                (y, x0), (to_y, to_x) = divmod(i - 1, grid[1]), divmod(j - 1, grid[1])
                row = (y - to_y + grid[0] - 1) * (2 * grid[1] - 1) + x0 - to_x + grid[1] - 1
            else:
                row = len(table) - (1 if i == j else 3 if i == 0 else 2)
            scores[:, i, j] += table[row]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ v
    mixed = mixed.swapaxes(0, 1).reshape(count, width) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    x = x + w["gamma_1"] * mixed
    hidden = norm(x, "norm2") @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    hidden = hidden * (1 + scipy.special.erf(hidden / np.sqrt(2))) / 2
    return x + w["gamma_2"] * (hidden @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"])


def test_a_beit_of_another_height_than_width(load):
    """The manifest of another folder may have images of 96x160; here it is that of the layers, with such tables."""
    manifest, _, keys = load("layers")
    manifest = manifest | {"config": {"backbone": manifest["config"]["backbone"] | {"img_size": [96, 160]}}}
    grid = (6, 10)
    keys = {key: shape for key, shape in keys.items() if key.startswith("backbone.")}
    tables = {key: [11 * 19 + 3, shape[1]] for key, shape in keys.items() if key.endswith("position_bias_table")}
    indices = {key: [61, 61] for key in keys if key.endswith("relative_position_index")}
    model, variables = build(manifest, keys | tables | indices)
    assert grid_of(manifest["config"]) == grid and model.backbone.image_size == (96, 160)
    maps = jax.eval_shape(
        model.backbone.apply, {k: v["backbone"] for k, v in variables.items()}, jnp.zeros((1, 96, 160, 3))
    )
    assert [m.shape[1:3] for m in maps] == [(96 // s, 160 // s) for s in (4, 8, 16, 32)]

    x = 0.01 * feature("tok61", manifest, (61, 192))
    weights = vita_rule.make_all(keys | tables, manifest["seed"])
    expected = published_beit_block(weights, np.float64(x), model.backbone.num_heads, grid)
    shapes = ((12, 20), grid, (3, 5))
    block = model.backbone.interactions(shapes, train=False)[0].blocks[0]
    found = run_layer(variables, block, "backbone/blocks", jnp.asarray(x)[None], row=0)[0]
    assert np.abs(expected - x).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_resampled_relative_table(golden_dir, golden_is_whole):
    manifest, arrays = golden_files.load(golden_dir, "vit_adapter_relpos", whole=golden_is_whole)
    source = manifest["input_scale"] * feature(manifest["input_name"], manifest, manifest["input_shape"])
    sides = [(manifest[f"{end}_grid"],) * 2 for end in ("src", "dst")]
    compare(manifest, arrays, {"table": resampled_tables.resample(source, *sides)})


@pytest.mark.parametrize("name", ["beit_backbone", "vit_backbone", "vit_window"])
def test_backbone_with_intermediates(load, name):
    manifest, arrays, keys = load(name)
    model, variables = build(manifest, keys)
    apply = jax.jit(functools.partial(model.backbone.apply, mutable=["intermediates"]))
    maps, kept = apply({k: v["backbone"] for k, v in variables.items()}, image_of(manifest))
    (prior,), (recorded,), (pyramid,) = (kept["intermediates"][k] for k in ("prior", "interactions", "pyramid"))
    step, s = manifest["token_stride"], manifest["spm_c1_stride"]
    tokens = lambda x: np.asarray(x).reshape(x.shape[0], -1, x.shape[-1])  # noqa: E731
    ours = {f"f{i + 1}": channels_first(m) for i, m in enumerate(maps)}
    ours["spm_c1"] = channels_first(prior[0])[..., ::s, ::s]
    ours |= {f"spm_c{i + 1}": tokens(m)[:, ::step] for i, m in enumerate(prior[1:], start=1)}
    for i in range(len(model.backbone.groups)):
        ours |= {f"inj{i}_x": recorded["injected"][i], f"int{i}_x": recorded["patches"][i]}
        ours |= {f"int{i}_c": recorded["pyramid"][i][:, ::step]}
        if recorded["cls"] is not None:
            ours[f"int{i}_cls"] = recorded["cls"][i]
    ours[f"int{i}_c"] = pyramid[:, ::step]  # the last interaction's comes after the extra extractors
    compare(manifest, arrays, ours)


def test_batch_norm_in_training(load):
    manifest, arrays, keys = load("bn_train")
    model, variables = build(manifest, keys)
    apply = jax.jit(functools.partial(model.backbone.apply, train=True, mutable=["batch_stats"]))
    own = {k: v["backbone"] for k, v in variables.items()}
    maps, kept = apply(own, image_of(manifest), rngs={"drop_path": jax.random.key(0)})
    table = vit_adapter_keys.backbone_table(config_of(manifest["config"]))
    stats = rules.to_arrays(table, {"params": variables["params"], "batch_stats": {"backbone": kept["batch_stats"]}})
    ours = {f"f{i + 1}": channels_first(m) for i, m in enumerate(maps)}
    ours |= {name.removeprefix("backbone."): a for name, a in stats.items() if ".running_" in name}
    compare(manifest, arrays, ours)


def test_head(load):
    manifest, arrays, keys = load("head")
    model, variables = build(manifest, keys)
    maps = [
        channels_last(feature(name, manifest, shape))
        for name, shape in zip(manifest["feature_names"], manifest["input_shapes"], strict=True)
    ]

    @jax.jit
    def run(variables, maps):
        outputs = model.apply(variables, [m[:, None] for m in maps], method="decode")
        decoder = {"params": variables["params"]["pixel_decoder"]}
        memories = model.pixel_decoder.apply(decoder, maps)[1]
        masks = jnp.einsum("bthwc,dbqc->dbqhw", outputs.mask_features, outputs.mask_embeds["object"])
        return outputs, memories, masks, semantic_scores(outputs)

    outputs, memories, masks, scores = run(variables, maps)
    ours = {f"mem{i}": channels_first(m) for i, m in enumerate(memories)}
    ours |= {"mask_features": channels_first(outputs.mask_features[:, 0]), "cls": outputs.class_logits, "mask": masks}
    compare(manifest, arrays, ours | {"semantic": channels_first(scores[:, 0])})


def semantic_scores(outputs):
    """Scores `[b, t, h4, w4, k]` as inference makes them."""
    return jnp.moveaxis(make_task("mask_classification", num_classes=1).decode(outputs).semantic, 1, -1)


def test_segmentor(load):
    manifest, arrays, keys = load("segmentor")
    model, variables = build(manifest, keys)
    images = pixels_of(model, manifest)

    @jax.jit
    def run(variables, images):
        maps = model.apply(variables, images[:, None], method="backbone_features")
        outputs = model.apply(variables, maps, method="decode_features")
        masks = jnp.einsum("bthwc,bqc->bqhw", outputs.mask_features, outputs.mask_embeds["object"][-1])
        return maps, outputs, masks, resize(semantic_scores(outputs)[:, 0], images.shape[1:3])

    maps, outputs, masks, scores = run(variables, images)
    ours = {f"f{i + 1}": channels_first(m[:, 0]) for i, m in enumerate(maps)}
    ours |= {"mask_logits": masks, "class_logits": outputs.class_logits[-1]}
    ours |= {"semantic_full_s3": channels_first(scores)[..., ::3, ::3], "argmax_full": scores.argmax(-1)}
    compare(manifest, arrays, ours)
