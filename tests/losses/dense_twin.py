"""Slow numpy twins of the losses, from dense masks and logits, one map and one point at a time."""

import numpy as np


def sample(image, point):
    """Bilinear value of `[h, w]` at (x, y) in 0..1, zero outside."""
    height, width = image.shape
    x, y = point[0] * width - 0.5, point[1] * height - 0.5
    total = 0.0
    for cy in (int(np.floor(y)), int(np.floor(y)) + 1):
        for cx in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= cx < width and 0 <= cy < height:
                total += image[cy, cx] * (1 - abs(x - cx)) * (1 - abs(y - cy))
    return total


def samples(image, points):
    return np.array([sample(image, p) for p in points])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logits, labels):
    return np.mean(-(labels * np.log(sigmoid(logits)) + (1 - labels) * np.log(1 - sigmoid(logits))))


def dice(logits, labels):
    s = sigmoid(logits)
    return 1 - (2 * np.sum(s * labels) + 1) / (np.sum(s) + np.sum(labels) + 1)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
