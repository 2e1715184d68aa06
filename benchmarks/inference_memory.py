"""Working memory of the step from scores to labels, against resizing all logits and taking the best of them.

Use: python benchmarks/inference_memory.py [--classes 124] [--frames 12] [--height 720] [--width 1280]

XLA's own count for both forms, compiled for this machine; nothing runs. Ours is what `vps-jax predict` calls for each
frame of a clip; the plain form resizes the clip's logits as one array.
"""

import argparse

import jax
import jax.numpy as jnp

from vps_jax.infer import upsampling
from vps_jax.infer.clip_model import geometry

MIB = 2**20


def plain(semantic, sizes):
    """Labels `[t, h, w]` of logits `[k, t, h4, w4]`: four times as large, cropped, at the size of the video, argmax."""
    classes, frames, *_ = semantic.shape
    large = jax.image.resize(semantic, (classes, frames, *sizes.padded), "bilinear")
    cropped = large[:, :, : sizes.resized[0], : sizes.resized[1]]
    full = jax.image.resize(cropped, (classes, frames, *sizes.original), "bilinear", antialias=False)
    return jnp.argmax(full, axis=0).astype(jnp.uint8)


def ours(semantic, classes, maps):
    """The same, frame by frame, with a running best over the classes."""

    def labels(t):
        frame = jax.lax.dynamic_index_in_dim(semantic, t, axis=1, keepdims=False)
        return upsampling._best_class(frame, classes, 0, maps)

    return jax.lax.map(labels, jnp.arange(semantic.shape[1]))


def working_memory(function, *arguments) -> int:
    """Bytes beside the arguments."""
    memory = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, default=124)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--width", type=int, default=1280)
    given = parser.parse_args()
    sizes = geometry((given.height, given.width), short_side=given.height, max_side=max(given.height, given.width))
    grid = tuple(side // 4 for side in sizes.padded)
    semantic = jax.ShapeDtypeStruct((given.classes, given.frames, *grid), jnp.float32)
    classes = jax.ShapeDtypeStruct((given.classes,), jnp.int32)
    whole = working_memory(lambda x: plain(x, sizes), semantic)
    streamed = working_memory(ours, semantic, classes, upsampling.upsampling(sizes))
    print(f"resize and argmax: {whole / MIB:.0f} MiB")
    print(f"running best, {given.frames} frames: {streamed / MIB:.1f} MiB, ratio {streamed / whole:.4f}")


if __name__ == "__main__":
    main()
