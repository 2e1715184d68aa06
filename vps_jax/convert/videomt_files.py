"""Files that a VidEoMT can start from (spec: videomt 6, 7): the authors' and the port's, of any size of position table
and label set, and bare trunks: DINOv2 with registers in its own names or timm's, DINOv3 in Hugging Face's.

Everything is brought to the authors' names and the model's sizes first, so that one key table serves all files.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from vps_jax.config import VidEoMT as Config
from vps_jax.convert import rules, videomt_keys
from vps_jax.convert.videomt_keys import EMPTY_WEIGHT, MASK_TOKEN, MODEL, TRUNK, table
from vps_jax.models.videomt import sized
from vps_jax.models.vit import resampled_positions
from vps_jax.types import UserError

__all__ = ["fill", "fitted", "image_size_of", "table", "to_arrays"]
POSITIONS = f"{TRUNK}pos_embed"
PORT = "embeddings.patch_embeddings.projection.weight"
DINOV3 = "layer.0.attention.q_proj.weight"
to_arrays = videomt_keys.to_arrays


def fitted(arrays: Mapping[str, np.ndarray], config: Config) -> Config:
    """The config with the file's `image_size`: files of one model differ in it and none of their configs says so."""
    image_size = image_size_of(arrays, config.patch)
    return config if image_size is None else dataclasses.replace(config, image_size=image_size)


def image_size_of(arrays: Mapping[str, np.ndarray], patch: int) -> int | None:
    """The side in pixels of the square image that a published file's position table is for.

    None for a file without a table, and for a bare trunk, whose table is resampled.
    """
    rows = arrays.get(POSITIONS, arrays.get("embeddings.position_embeddings.weight"))
    return None if rows is None else round(rows.shape[-2] ** 0.5) * patch


def fill(arrays: Mapping[str, np.ndarray], config: Config, expected: Mapping[str, Any]) -> rules.Filled:
    """Variables of a VidEoMT from any of the files above.

    Args:
      arrays: published name -> array.
      config: `config.model`.
      expected: all variables of that model with `.shape` and `.dtype` at the leaves.

    Raises:
      UserError: not a file of these, or of other sizes (`rules.MismatchError` names what does not fit).
    """
    n = sized(config)
    notes: list[str] = []
    wanted = traverse_util.flatten_dict({"params": expected["params"]}, sep="/")
    every = len(traverse_util.flatten_dict(dict(expected)))
    arrays, bare = model_names(arrays, config, notes)
    if bare:
        wanted = {path: leaf for path, leaf in wanted.items() if path in trunk_paths(config)}
    else:
        check_table(arrays, n)
        arrays, empty = without_other_labels(arrays, n.semantic_groups[0], notes)
        wanted = {path: leaf for path, leaf in wanted.items() if path not in empty}
    arrays.setdefault(MASK_TOKEN, np.zeros((1, 1, n.width), np.float32))
    filled = rules.apply(table(config), arrays, traverse_util.unflatten_dict(wanted, sep="/"))
    return rules.Filled(filled, len(wanted) == every, tuple(notes))


def model_names(arrays: Mapping[str, np.ndarray], config: Config, notes: list[str]) -> tuple[dict, bool]:
    """Arrays under the authors' names, and whether they are a trunk alone."""
    n = sized(config)
    if PORT in arrays:
        return videomt_keys.authors_names(arrays, config), False
    if TRUNK + DINOV3 in arrays:
        inner = {key.removeprefix(TRUNK): value for key, value in arrays.items() if key.startswith(TRUNK)}
        others = {key: value for key, value in arrays.items() if not key.startswith(TRUNK)}
        return others | _prefixed(dinov3_names(inner)), False
    if f"{TRUNK}blocks.0.attn.qkv.weight" in arrays:
        return dict(arrays), False
    arrays = {key.removeprefix("model."): value for key, value in arrays.items()}
    if DINOV3 in arrays and not n.image_size:
        return _prefixed(dinov3_names(arrays)), True
    if "blocks.0.attn.qkv.weight" in arrays and "pos_embed" in arrays and n.image_size:
        return _prefixed(dinov2_entries(arrays, n, notes)), True
    raise UserError(
        f"a file with the key {next(iter(arrays), None)!r} is neither a VidEoMT nor a trunk that this model starts "
        "from; expected DINOv2 with registers, or DINOv3 for a model with rotary positions (image_size=0)"
    )


def check_table(arrays: Mapping[str, np.ndarray], n: Config) -> None:
    """A table of another size is never resampled silently: it is part of the model."""
    image_size = image_size_of(arrays, n.patch)
    if n.image_size and image_size is not None and image_size != n.image_size:
        raise UserError(
            f"the file's position table is for images of {image_size}x{image_size}, the config says {n.image_size}; "
            f"set model.image_size={image_size}"
        )


def trunk_paths(config: Config) -> set[str]:
    """Our paths that a bare trunk fills: embeddings, all blocks and the final norm."""
    return {rule.path for rule in table(config).rules if rule.key.startswith(TRUNK)}


def dinov2_entries(arrays: Mapping[str, np.ndarray], n: Config, notes: list[str]) -> dict[str, np.ndarray]:
    """A DINOv2 with registers: the class token takes its position along; table and kernel get the model's size."""
    out = {key.replace("register_tokens", "reg_token"): np.asarray(value) for key, value in arrays.items()}
    rows, side = out["pos_embed"][0], n.image_size // n.patch
    if round(rows.shape[0] ** 0.5) ** 2 != rows.shape[0]:
        out["cls_token"] = out["cls_token"] + rows[:1]
        rows = rows[1:]
    if rows.shape[0] != side**2:
        notes.append(f"position table resampled from {round(rows.shape[0] ** 0.5)} to {side} patches a side")
    if "mask_token" in out:
        out["mask_token"] = out["mask_token"].reshape(1, 1, -1)
    out["pos_embed"] = np.asarray(resampled_positions(rows.astype(np.float32), (side, side)))[None]
    kernel = out["patch_embed.proj.weight"]
    if kernel.shape[-1] != n.patch:
        notes.append(f"patch kernel resampled from {kernel.shape[-1]} to {n.patch} pixels a side")
        out["patch_embed.proj.weight"] = resampled_kernel(kernel, n.patch)
    return {key: value for key, value in out.items() if not key.startswith("head")}


def resampled_kernel(kernel: np.ndarray, side: int) -> np.ndarray:
    """A patch kernel for patches of another size, such that resized patches give the same tokens (spec: videomt 6).

    The new kernel is the pseudo-inverse of the resize, transposed, times the old one: FlexiViT's rule.

    Args:
      kernel: `[c, channels, s, s]`.
      side: new s.
    """
    old = kernel.shape[-1]
    units = np.eye(old * old, dtype=np.float32).reshape(old, old, -1)
    shape = (side, side, units.shape[-1])
    grown = jax.image.resize(units, shape, "cubic", antialias=True, precision=jax.lax.Precision.HIGHEST)
    resize = np.asarray(grown, np.float64).reshape(side * side, -1)
    flat = kernel.reshape(*kernel.shape[:2], -1).astype(np.float64)
    new = flat @ np.linalg.pinv(resize)  # k pinv(B), the transpose of pinv(B^T) k
    return new.reshape(*kernel.shape[:2], side, side).astype(np.float32)


def dinov3_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's DINOv3 under the names of the authors' trunk; its keys have no bias, ours is zero."""
    words = (
        (r"^embeddings\.register_tokens", "reg_token"),
        (r"^embeddings\.patch_embeddings", "patch_embed.proj"),
        (r"^embeddings\.", ""),
        (r"^layer\.", "blocks."),
        (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
        (r"attention\.o_proj", "attn.proj"),
        (r"mlp\.up_proj", "mlp.fc1"),
        (r"mlp\.down_proj", "mlp.fc2"),
    )
    out = {}
    for key, value in arrays.items():
        for pattern, new in words:
            key = re.sub(pattern, new, key)
        out[key] = value
    blocks = sorted(key.removesuffix(".norm1.weight") for key in out if key.endswith(".norm1.weight"))
    for block in blocks:
        for end in ("weight", "bias"):
            parts = [out.pop(f"{block}.attention.{part}_proj.{end}", None) for part in "qkv"]
            parts = [np.zeros_like(parts[0]) if part is None else part for part in parts]
            out[f"{block}.attn.qkv.{end}"] = np.concatenate(parts)
    return out


def without_other_labels(arrays: Mapping[str, np.ndarray], group: tuple[str, int], notes: list[str]):
    """Arrays without the class rows of another number of classes, and our paths that stay empty then."""
    name, classes = group
    count = arrays[f"{MODEL}class_head.bias"].shape[0] - 1 if f"{MODEL}class_head.bias" in arrays else classes
    if count == classes:
        return dict(arrays), set()
    notes.append(f"class rows of a label set of {count} classes left out; the model's {name} ({classes}) start fresh")
    others = {key: value for key, value in arrays.items() if not key.startswith(f"{MODEL}class_head")}
    others.pop(EMPTY_WEIGHT, None)
    return others, {f"params/heads/class_head/{part}" for part in ("kernel", "bias")}


def _prefixed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {TRUNK + key: value for key, value in arrays.items()}
