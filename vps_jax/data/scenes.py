"""Scenes of textured regions and moving things, drawn with whole numbers so that every machine gets the same pixels.

A scene is a pure function of (seed, video number), a frame of (scene, tick). Three ticks are one frame of the 5 fps
VIPSeg clip, one tick is one frame of the 15 fps VSPW clip of the same scene.

Every class may wear two of three colour pairs and every pair is worn by four stuff and four thing classes: colour does
not tell the class, the period and direction of the texture (stuff) or the outline and its pattern (things) do.
Lengths are in 1/16 pixel; random numbers are raw PCG64 words, whose stream numpy keeps fixed.
"""

from typing import NamedTuple

import numpy as np

from vps_jax.datasets import vipseg

TICKS_PER_FRAME = 3
UNIT = 16  # positions are in 1/16 pixel
# class ids of VIPSeg's list, each with the texture or outline that only it has
STUFF = {28: "rows", 15: "columns", 18: "slanted", 39: "checks", 21: "grid", 16: "dots"}
THINGS = {74: "disc", 76: "square", 46: "triangle", 60: "upright", 48: "flat", 43: "cross"}
# (dark, light) RGB; the two tones of all three pairs have about equal brightness
PALETTES = np.array(
    [
        [[40, 60, 120], [150, 180, 235]],
        [[35, 90, 45], [165, 215, 140]],
        [[120, 50, 35], [240, 180, 150]],
    ],
    np.int32,
)
CLASSES = tuple(STUFF) + tuple(THINGS)


class Thing(NamedTuple):
    """One object: class id, value in the mask, colour pair, middle position and speed (1/16 px, per tick), size."""

    category: int
    value: int
    palette: int
    middle: tuple[int, int]
    speed: tuple[int, int]
    radius: int
    growth: int  # 1/1024 of the radius per tick


class Scene(NamedTuple):
    """What is constant over one video; `things` in painting order, later ones in front."""

    height: int
    width: int
    num_frames: int
    regions: tuple[tuple[int, int], ...]  # (class id, palette)
    layout: tuple[int, ...]  # horizon, wave height, wave length, wave phase, divide, slant, pan per tick
    void: tuple[int, int, int, int] | None  # y, x, height, width of a box nobody labelled
    things: tuple[Thing, ...]
    gain: int
    key: tuple[int, int]


class Draws:
    """Whole random numbers from raw PCG64 words."""

    def __init__(self, *key: int):
        self.bits = np.random.PCG64(np.random.SeedSequence(key))

    def integer(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return low + int(self.bits.random_raw()) % (high - low + 1)

    def sample(self, items, count: int) -> list:
        """`count` different items."""
        left = list(items)
        return [left.pop(self.integer(0, len(left) - 1)) for _ in range(count)]

    def bytes(self, size: int) -> np.ndarray:
        """uint8 `[size]`."""
        words = np.atleast_1d(self.bits.random_raw(-(-size // 8)))
        return words.astype("<u8").view(np.uint8)[:size]


def palette_of(draws: Draws, category: int) -> int:
    """One of the two colour pairs that the class may wear."""
    return (CLASSES.index(category) + draws.integer(0, 1)) % len(PALETTES)


def make_scene(seed: int, video: int, *, height: int, width: int, num_frames: int, with_things: bool = True) -> Scene:
    """Draw one scene.

    Args:
      seed, video: the scene is a function of these two and of the sizes.
      height, width: pixels.
      num_frames: frames at 5 fps.
      with_things: False gives a video without any instance.
    """
    draws = Draws(seed, video)
    short = min(height, width)
    regions = tuple((c, palette_of(draws, c)) for c in draws.sample(STUFF, draws.integer(2, 3)))
    layout = (
        draws.integer(height * 35 // 100, height * 60 // 100),
        draws.integer(0, short // 10),
        draws.integer(short // 3, short),
        draws.integer(0, short),
        draws.integer(width * 35 // 100, width * 65 // 100),
        draws.integer(-8, 8),
        draws.integer(-5, 5),
    )
    void = None
    if draws.integer(0, 1):
        size = draws.integer(short // 12, short // 6), draws.integer(short // 8, short // 4)
        void = (draws.integer(0, height - size[0]), draws.integer(0, width - size[1]), *size)
    things = make_things(draws, height, width) if with_things else ()
    return Scene(height, width, num_frames, regions, layout, void, things, draws.integer(-14, 14), (seed, video))


def make_things(draws: Draws, height: int, width: int) -> tuple[Thing, ...]:
    """Three to five objects; in two videos of three the first class comes twice or more, as look-alikes."""
    short = min(height, width)
    count = draws.integer(3, 5)
    classes = draws.sample(THINGS, count)
    if draws.integer(0, 2):
        twins = draws.integer(2, min(3, count))
        classes[:twins] = [classes[0]] * twins
    classes = draws.sample(classes, count)
    numbers: dict[int, int] = {}
    palettes: dict[int, int] = {}
    things = []
    for category in classes:
        number = numbers[category] = numbers.get(category, -1) + 1
        palette = palettes.setdefault(category, palette_of(draws, category))
        fastest = short * UNIT // 90  # per tick: a frame moves an object by 3 % of the short side at most
        middle = draws.integer(height // 6, height * 5 // 6) * UNIT, draws.integer(width // 10, width * 9 // 10) * UNIT
        speed = draws.integer(-fastest // 2, fastest // 2), draws.integer(-fastest, fastest)
        radius = draws.integer(short * UNIT // 8, short * UNIT // 5)
        value = vipseg.value_of(category, number)
        things.append(Thing(category, value, palette, middle, speed, radius, draws.integer(-8, 8)))
    return tuple(things)


def render(scene: Scene, tick: int) -> tuple[np.ndarray, np.ndarray]:
    """One frame.

    Args:
      scene: what `make_scene` gave.
      tick: 0 .. 3 * num_frames - 1.

    Returns:
      image uint8 `[h, w, 3]` RGB, mask uint16 `[h, w]` in VIPSeg's raw code.
    """
    y, x = np.mgrid[: scene.height, : scene.width].astype(np.int32)
    image, mask = paint_regions(scene, tick, y, x)
    for thing in scene.things:
        paint_thing(image, mask, thing, tick - 3 * scene.num_frames // 2, y, x)
    if scene.void is not None:
        top, left, rows, columns = scene.void
        box = np.s_[top : top + rows, left : left + columns]
        image[box], mask[box] = 110, 0
    noise = Draws(*scene.key, 1 + tick).bytes(image.size).reshape(image.shape)
    image += (noise % 15).astype(np.int32) - 7 + scene.gain
    return np.clip(image, 0, 255).astype(np.uint8), mask


def paint_regions(scene: Scene, tick: int, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two or three stuff regions with a line of void where they meet: image int32 `[h, w, 3]`, mask uint16 `[h, w]`."""
    horizon, amplitude, length, phase, divide, slant, pan = scene.layout
    shift = pan * tick // UNIT
    x = x + shift
    wave = np.abs((x + phase) % (2 * length) - length) * amplitude // length  # a triangle wave needs no sine
    below = y - horizon - wave
    right = x - shift * 2 - divide - (y * slant >> 4)
    edge = (below == 0) | ((right == 0) & (below > 0) & (len(scene.regions) == 3))
    index = np.where(below < 0, 0, 1)
    if len(scene.regions) == 3:
        index = np.where((below >= 0) & (right >= 0), 2, index)
    image, mask = np.zeros((*y.shape, 3), np.int32), np.zeros(y.shape, np.uint16)
    period = max(4, min(scene.height, scene.width) // 12)
    for i, (category, palette) in enumerate(scene.regions):
        here = index == i
        light = texture(STUFF[category], y, x, period)
        image[here] = PALETTES[palette][light[here].astype(np.int32)]
        mask[here] = category + 1
    mask[edge] = 0
    return image, mask


def texture(name: str, y: np.ndarray, x: np.ndarray, period: int) -> np.ndarray:
    """bool `[h, w]`: where the light tone goes. No texture is the mirror image of another: training mirrors clips."""
    half = max(2, period // 2)
    if name == "rows":
        return y // half % 2 == 0
    if name == "columns":
        return x // half % 2 == 0
    if name == "slanted":
        return (x + y) // half % 2 == 0
    if name == "checks":
        return (x // (half + 2) + y // (half + 2)) % 2 == 0
    if name == "grid":
        return (y % period < period // 3) | (x % period < period // 3)
    v, u = y % period - half, x % period - half
    return v * v + u * u <= half * half * 9 // 16  # dots


def paint_thing(image: np.ndarray, mask: np.ndarray, thing: Thing, age: int, y: np.ndarray, x: np.ndarray) -> None:
    """Draw one object over image and mask; `age` is in ticks from the middle of the video."""
    scale = min(max(1024 + thing.growth * age, 768), 1360)
    radius = thing.radius * scale // 1024
    v = y * UNIT - thing.middle[0] - thing.speed[0] * age
    u = x * UNIT - thing.middle[1] - thing.speed[1] * age
    # outline and pattern live in a square of -64..64
    whole = outline(THINGS[thing.category], v * 64 // radius, u * 64 // radius)
    inner = radius - UNIT * 3 // 2
    v, u = v * 64 // inner, u * 64 // inner
    core = whole & outline(THINGS[thing.category], v, u)
    dark, light = PALETTES[thing.palette]
    image[whole] = dark // 4  # a rim tells look-alikes apart where they touch
    image[core] = np.where(pattern(THINGS[thing.category], v, u)[core][:, None], light, dark)
    mask[whole] = thing.value


def outline(name: str, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """bool `[h, w]`: inside the shape, which fills most of -64..64."""
    if name == "disc":
        return v * v + u * u < 62 * 62
    if name == "square":
        return (np.abs(v) < 54) & (np.abs(u) < 54)
    if name == "triangle":
        return (v < 56) & (2 * np.abs(u) < v + 64)
    if name == "upright":
        return v * v + 3 * u * u < 64 * 64
    if name == "flat":
        return (np.abs(u) < 64) & (np.abs(v) < 36)
    return ((np.abs(v) < 22) | (np.abs(u) < 22)) & (np.abs(v) < 62) & (np.abs(u) < 62)  # cross


def pattern(name: str, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """bool `[h, w]`: where the light tone goes inside the shape."""
    if name == "disc":
        return v * v + u * u < 34 * 34
    if name == "square":
        return (v < 0) ^ (u < 0)
    if name == "triangle":
        return u < 0
    if name == "upright":
        return v < -10
    if name == "flat":
        return np.abs(u) > 30
    return np.ones(v.shape, bool)  # cross
