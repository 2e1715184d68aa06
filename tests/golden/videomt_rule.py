"""Weights, frames and designed logits of the videomt_* fixtures from names, shapes and a seed (numpy only).

Names are the safetensors (Hugging Face) names.  Independent of the other rule files.
"""
import zlib
import numpy as np

MEAN = np.array([123.675, 116.28, 103.53], np.float64)
STD = np.array([58.395, 57.12, 57.375], np.float64)

GAINS = (
    ("attention.q_proj.weight", 1.5),
    ("attention.k_proj.weight", 1.5),
    ("attention.out_proj.weight", 1.0),
    ("mlp.fc2.weight", 1.5),
    ("mask_head.fc1.weight", 1.4),
    ("mask_head.fc2.weight", 1.4),
    ("mask_head.fc3.weight", 0.4),
    ("class_predictor.weight", 4.0),
    ("query_updater.weight", 0.7),
)


def rng(name, seed):
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed))


def make(name, shape, seed):
    """float32 array of one entry; None for the two entries that are constants (see constants())."""
    last = name.rsplit(".", 1)[-1]
    if name == "attn_mask_probs" or name.startswith("criterion."):
        return None
    z = rng(name, seed).standard_normal(tuple(shape))
    if name == "query.weight" or last in ("cls_token", "register_tokens", "mask_token"):
        v = z
    elif name == "embeddings.position_embeddings.weight":
        v = 0.5 * z
    elif last == "lambda1":
        v = 0.4 + 0.1 * z
    elif last == "bias":
        v = 0.05 * z
    elif len(shape) == 1:
        v = 1.0 + 0.1 * z
    else:
        # stored [out, in, ...]; the transposed convolutions (conv1 of the upscale blocks) are [in, out, 2, 2]
        up = ".conv1.weight" in name
        fan_in = shape[0] if up else int(np.prod(shape[1:]))
        g = next((g for part, g in GAINS if part in name), 1.4 if up else 1.0)
        v = z * (g / np.sqrt(fan_in))
    return v.astype(np.float32)


def make_all(listing, seed):
    """listing: {name: shape} -> {name: float32 array}; constants are left out."""
    out = {}
    for name, shape in listing.items():
        a = make(name, shape, seed)
        if a is not None:
            out[name] = a
    return out


def clip(name, seed, frames, height, width):
    """uint8 RGB [T, H, W, 3]: drifting sine patterns, one textured disc that moves, a little noise."""
    r = rng("clip:" + name, seed)
    y = np.arange(height, dtype=np.float64)[:, None]
    x = np.arange(width, dtype=np.float64)[None, :]
    waves = [[(r.uniform(-5, 5, 2), r.uniform(0, 1), r.uniform(12, 35), r.uniform(-0.08, 0.08)) for _ in range(4)] for _ in range(3)]
    cy, cx, vy, vx = r.uniform(0.3, 0.7), r.uniform(0.2, 0.5), r.uniform(-0.05, 0.05), r.uniform(0.03, 0.1)
    rad = r.uniform(0.15, 0.25) * min(height, width)
    colour = r.uniform(20, 235, 3)
    out = np.zeros((frames, height, width, 3), np.uint8)
    for t in range(frames):
        disc = (y - (cy + vy * t) * height) ** 2 + (x - (cx + vx * t) * width) ** 2 < rad ** 2
        for c in range(3):
            v = np.full((height, width), 120.0)
            for (f, ph, am, sp) in waves[c]:
                v = v + am * np.sin(2 * np.pi * (f[0] * y / height + f[1] * x / width + ph + sp * t))
            v = np.where(disc, colour[c] + 0.3 * (v - 120.0), v) + 8.0 * r.standard_normal((height, width))
            out[t, :, :, c] = np.clip(np.rint(v), 0, 255).astype(np.uint8)
    return out


def normalise(u8):
    """uint8 [T, H, W, 3] -> float32 [T, 3, H, W]; computed in float64, cast once."""
    return ((u8.astype(np.float64) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def pad32(x):
    """zero padding of the normalised frames at the right and the bottom up to multiples of 32."""
    h, w = x.shape[-2:]
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, -h % 32), (0, -w % 32)])


def smooth(a, times):
    """3x3 box means with edge repetition on the last two axes."""
    for _ in range(times):
        p = np.pad(a, [(0, 0)] * (a.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
        a = sum(p[..., i:i + a.shape[-2], j:j + a.shape[-1]] for i in range(3) for j in range(3)) / 9.0
    return a


def designed(name, seed, queries, frames, classes, h, w):
    """Logits for the video post-processing fixtures: class [T, Q, classes + 1], mask [Q, T, h, w], float32 multiples of 1/64.

    Queries own overlapping discs that drift; some pairs share a class, some queries are 'nothing', some are unsure.
    """
    r = rng("designed:" + name, seed)
    y = (np.arange(h) + 0.5)[:, None] / h
    x = (np.arange(w) + 0.5)[None, :] / w
    cls = r.standard_normal((frames, queries, classes + 1))
    lab = r.integers(0, classes, queries)
    lab[1::7] = lab[0]
    kind = r.random(queries)
    for q in range(queries):
        if kind[q] < 0.25:
            cls[:, q, classes] += 12.0
        elif kind[q] < 0.40:
            cls[:, q, lab[q]] += 4.0
        else:
            cls[:, q, lab[q]] += 11.0
    masks = np.zeros((queries, frames, h, w))
    for q in range(queries):
        c, v = r.uniform(0.05, 0.95, 2), r.uniform(-0.04, 0.04, 2)
        s, k = r.uniform(0.07, 0.22), r.uniform(15, 40)
        for t in range(frames):
            d = np.sqrt((y - c[0] - v[0] * t) ** 2 + (x - c[1] - v[1] * t) ** 2)
            masks[q, t] = k * (s - d)
    masks += 1.0 * smooth(r.standard_normal(masks.shape), 2)
    q64 = lambda a: (np.rint(a * 64) / 64).astype(np.float32)
    return q64(cls), q64(masks)


def points(name, seed, shape):
    """uniform [0, 1) float32 points, last axis (x, y), snapped to multiples of 1/4096."""
    return (np.floor(rng(name, seed).random(tuple(shape)) * 4096) / 4096).astype(np.float32)
