"""The picture of a cat, drawn from its attributes with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .attributes import EYES, FURS, GROUNDS, TINTS, Cat, Colour

PICTURE_SIZE = 64
OVERSAMPLING = 4
OUTLINE = 0.07
INK: Colour = (44, 34, 40)
PINK: Colour = (240, 146, 156)
GOLD: Colour = (250, 200, 40)
PAPER: Colour = (255, 255, 255)
BLUR_RADIUS = 1.6
BASE_SALIENCY = 0
Point = tuple[float, float]


def blend(one: Colour, other: Colour, share: float) -> Colour:
    """Mix two colours; `share` of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def oval(x: float, y: float, rx: float, ry: float, corners: int = 40) -> list[Point]:
    """Points around an ellipse."""
    turns = (2 * math.pi * k / corners for k in range(corners))
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """The same shape on the other side of the face."""
    return [(-x, y) for x, y in points]


@dataclass(frozen=True)
class Canvas:
    """Draws shapes given in head radii around the head's centre, on the picture and its saliency."""

    cat: Cat
    picture: ImageDraw.ImageDraw
    saliency: ImageDraw.ImageDraw

    def place(self, points: Sequence[Point], tilt: float | None = None) -> list[Point]:
        """Head coordinates to pixels of the oversampled picture."""
        turn = self.cat.tilt if tilt is None else tilt
        cos, sin = math.cos(turn) * self.cat.size, math.sin(turn) * self.cat.size
        return [
            (
                (self.cat.x + cos * x * self.cat.width - sin * y) * OVERSAMPLING,
                (self.cat.y + sin * x * self.cat.width + cos * y) * OVERSAMPLING,
            )
            for x, y in points
        ]

    def shape(
        self,
        points: Sequence[Point],
        fill: Colour,
        weight: int = 0,
        outline: float = 0.0,
        tilt: float | None = None,
    ) -> None:
        """Fill a polygon, with an ink line `outline` head radii wide around it."""
        corners = self.place(points, tilt)
        self.picture.polygon(corners, fill=fill)
        if weight:
            self.saliency.polygon(corners, fill=weight)
        if outline:
            self.line([*points, points[0], points[1]], INK, outline, weight, tilt)

    def line(
        self,
        points: Sequence[Point],
        colour: Colour,
        width: float,
        weight: int = 0,
        tilt: float | None = None,
    ) -> None:
        """Draw a line through the points, `width` head radii wide."""
        corners = self.place(points, tilt)
        pixels = max(1, round(width * self.cat.size * OVERSAMPLING))
        self.picture.line(corners, fill=colour, width=pixels, joint="curve")
        if weight:
            self.saliency.line(corners, fill=weight, width=pixels + OVERSAMPLING, joint="curve")


def draw_cat(cat: Cat) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a portrait.

    Returns:
        The picture (height, width, 3) and its saliency (height, width): 255 where an error
        hurts most (eyes), 0 where it hurts least (ground and fur).
    """
    large = PICTURE_SIZE * OVERSAMPLING
    picture = _ground(GROUNDS[cat.ground], large)
    saliency = Image.new("L", (large, large), BASE_SALIENCY)
    canvas = Canvas(cat, ImageDraw.Draw(picture), ImageDraw.Draw(saliency))
    _body(canvas)
    _neckwear(canvas)
    _head(canvas)
    _markings(canvas)
    _muzzle(canvas)
    _eyes(canvas)
    _headwear(canvas)
    _whiskers(canvas)
    small = picture.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BOX)
    weights = saliency.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BOX)
    if cat.focus == "blurry":
        small = small.filter(ImageFilter.GaussianBlur(BLUR_RADIUS))
        weights = Image.new("L", small.size, BASE_SALIENCY)
    return np.asarray(small).copy(), np.asarray(weights).copy()


def _ground(colour: Colour, size: int) -> Image.Image:
    """A ground that grows darker from top to bottom."""
    top, bottom = (np.array(blend(colour, end, 0.18)) for end in (PAPER, INK))
    share = np.linspace(0, 1, size)[:, None]
    column = top * (1 - share) + bottom * share
    return Image.fromarray(np.repeat(column[:, None, :], size, axis=1).round().astype(np.uint8))


def _fur_shades(cat: Cat) -> tuple[Colour, Colour, Colour]:
    """The fur's main colour, a darker one (stripes) and a lighter one (muzzle, chest)."""
    main = FURS[cat.fur]
    dark = blend(main, (150, 150, 165), 0.4) if cat.fur == "black" else blend(main, (60, 30, 20), 0.45)
    return main, dark, blend(main, PAPER, 0.2 if cat.fur == "black" else 0.5)


def _body(canvas: Canvas) -> None:
    main, _, light = _fur_shades(canvas.cat)
    canvas.shape(oval(0, 1.85, 0.92, 1.15), main, outline=OUTLINE, tilt=0)
    canvas.shape(oval(0, 1.75, 0.42, 0.75), light, tilt=0)


def _neckwear(canvas: Canvas) -> None:
    tint = TINTS[canvas.cat.tint]
    if canvas.cat.accessory == "scarf":
        tail = [(0.3, 0.95), (0.72, 0.9), (0.8, 1.75), (0.42, 1.8)]
        band = [(-0.88, 0.62), (0.88, 0.62), (0.9, 1.14), (0.4, 1.28), (-0.4, 1.28), (-0.9, 1.14)]
        canvas.shape(tail, tint, 150, OUTLINE, tilt=0)
        canvas.shape([(0.38, 1.36), (0.77, 1.32), (0.79, 1.52), (0.4, 1.56)], PAPER, 150, tilt=0)
        canvas.shape(band, tint, 150, OUTLINE, tilt=0)
        for x in (-0.55, 0.0, 0.55):
            stripe = [(x - 0.1, 0.8), (x + 0.1, 0.8), (x + 0.1, 1.2), (x - 0.1, 1.2)]
            canvas.shape(stripe, PAPER, 150, tilt=0)
    elif canvas.cat.accessory == "bow":
        wing = [(0.0, 1.08), (0.62, 0.78), (0.7, 1.08), (0.62, 1.42)]
        for side in (wing, mirrored(wing)):
            canvas.shape(side, tint, 160, OUTLINE)
        canvas.shape(oval(0, 1.1, 0.17, 0.19), blend(tint, PAPER, 0.35), 160, OUTLINE)


def _head(canvas: Canvas) -> None:
    cat = canvas.cat
    main, dark, _ = _fur_shades(cat)
    tip = -0.6 - 0.62 * cat.ears
    ear = [(-0.97, -0.15), (-0.93, -0.6), (-0.84, tip), (-0.45, -0.85), (-0.1, -0.75)]
    inner = [(-0.82, -0.35), (-0.8, tip + 0.26), (-0.36, -0.72)]
    ear_fur = {"siamese": (92, 66, 58), "calico": FURS["ginger"]}.get(cat.fur, main)
    far_ear = FURS["black"] if cat.fur == "calico" else ear_fur
    for points, lining, fur in ((ear, inner, ear_fur), (mirrored(ear), mirrored(inner), far_ear)):
        canvas.shape(points, fur, 40, OUTLINE)
        canvas.shape(lining, PINK, 40)
    canvas.shape(oval(0, 0, 1.0, 0.86), main, outline=OUTLINE)
    if cat.fur == "siamese":
        canvas.shape(oval(0, 0.24, 0.66, 0.54), (120, 88, 74))


def _markings(canvas: Canvas) -> None:
    cat = canvas.cat
    _, dark, _ = _fur_shades(cat)
    if cat.fur == "calico":
        patch = [(-0.93, -0.2), (-0.75, -0.55), (-0.4, -0.8), (-0.1, -0.8), (-0.2, -0.1), (-0.65, 0.25)]
        canvas.shape(patch, FURS["ginger"])
        canvas.shape([(0.3, -0.8), (0.6, -0.67), (0.84, -0.4), (0.93, -0.2), (0.6, -0.25)], FURS["black"])
    if cat.pattern == "striped":
        for x in (-0.3, 0.0, 0.3):
            wedge = [(x - 0.1, -0.8), (x + 0.1, -0.8), (x * 0.75, -0.38)]
            canvas.shape(wedge, dark, 60)
        cheek = [(0.97, 0.1), (0.9, 0.36), (0.62, 0.2)]
        for side in (cheek, mirrored(cheek)):
            canvas.shape(side, dark, 60)


def _muzzle(canvas: Canvas) -> None:
    mood = canvas.cat.mood
    _, _, light = _fur_shades(canvas.cat)
    if canvas.cat.fur != "siamese":
        canvas.shape(oval(0, 0.46, 0.44, 0.3), light)
    ink = PAPER if canvas.cat.fur == "siamese" else INK
    if mood == "happy":
        canvas.shape(
            [(-0.3, 0.45), (0.3, 0.45), (0.2, 0.68), (0, 0.76), (-0.2, 0.68)], (150, 30, 44), 200, 0.06
        )
        canvas.shape(oval(0, 0.66, 0.13, 0.08), PINK, 200)
    elif mood == "grumpy":
        canvas.line([(-0.3, 0.68), (-0.15, 0.55), (0, 0.52), (0.15, 0.55), (0.3, 0.68)], ink, 0.085, 200)
    else:
        smile = [(-0.3, 0.5), (-0.16, 0.6), (0, 0.46), (0.16, 0.6), (0.3, 0.5)]
        canvas.line(smile, ink, 0.075, 200)
    canvas.shape([(-0.15, 0.27), (0.15, 0.27), (0.0, 0.45)], (232, 96, 116), 200, 0.04)


def _eyes(canvas: Canvas) -> None:
    """Two large eyes; the mood's lids cut them from above."""
    for side in (-1, 1):

        def cut(points: Sequence[Point], side: int = side) -> list[Point]:
            return [(x, max(y, _lid(canvas.cat.mood, x * side))) for x, y in points]

        x = 0.43 * side
        canvas.shape(cut(oval(x, -0.08, 0.36, 0.39)), INK, 255)
        canvas.shape(cut(oval(x, -0.07, 0.3, 0.33)), EYES[canvas.cat.eyes], 255)
        canvas.shape(cut(oval(x - 0.03 * side, -0.05, 0.13, 0.25)), (16, 12, 18), 255)
        low = 0.12 if canvas.cat.mood == "sleepy" else 0.0
        canvas.shape(oval(x - 0.1, -0.16 + low, 0.09, 0.09), PAPER, 255)
        if canvas.cat.mood in ("grumpy", "sleepy"):
            lid = [(x + dx, _lid(canvas.cat.mood, (x + dx) * side)) for dx in (-0.4, 0.4)]
            canvas.line(lid, INK, 0.1, 255)


def _lid(mood: str, outward: float) -> float:
    """How far down the upper lid reaches, at a distance from the middle of the face."""
    if mood == "sleepy":
        return -0.12
    return -0.55 + 0.55 * (0.86 - outward) if mood == "grumpy" else -2.0


def _headwear(canvas: Canvas) -> None:
    tint = TINTS[canvas.cat.tint]
    if canvas.cat.accessory == "hat":
        canvas.shape([(-0.5, -0.62), (-0.55, -1.5), (0.55, -1.5), (0.5, -0.62)], tint, 150, OUTLINE)
        canvas.shape([(-0.51, -0.78), (-0.53, -1.02), (0.53, -1.02), (0.51, -0.78)], GOLD, 150)
        canvas.shape(oval(0, -0.66, 0.88, 0.15), tint, 150, OUTLINE)
    elif canvas.cat.accessory == "crown":
        rim = [
            (-0.55, -0.58),
            (-0.68, -1.3),
            (-0.34, -0.98),
            (0, -1.45),
            (0.34, -0.98),
            (0.68, -1.3),
            (0.55, -0.58),
        ]
        canvas.shape(rim, GOLD, 150, OUTLINE)
        for x in (-0.32, 0.0, 0.32):
            canvas.shape(oval(x, -0.76, 0.11, 0.11, 16), tint, 150)
    elif canvas.cat.accessory == "glasses":
        for side in (-1, 1):
            ring = oval(0.43 * side, -0.06, 0.41, 0.44)
            canvas.line([*ring, ring[0], ring[1]], tint, 0.13, 200)
            canvas.line([(0.82 * side, -0.1), (0.99 * side, -0.2)], tint, 0.12, 200)
        canvas.line([(-0.09, -0.08), (0.09, -0.08)], tint, 0.13, 200)


def _whiskers(canvas: Canvas) -> None:
    dark_fur = canvas.cat.fur in ("black", "brown")
    colour: Colour = (250, 248, 244) if dark_fur else (70, 56, 60)
    for side in (-1, 1):
        for start, end in ((0.36, 0.2), (0.5, 0.56)):
            hair = [(0.52 * side, start), (1.0 * side, (start + end) / 2 - 0.02), (1.42 * side, end)]
            canvas.line(hair, colour, 0.075, 140)
