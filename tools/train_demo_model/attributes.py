"""What a cat portrait shows, as words and numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[int, int, int]

FURS: dict[str, Colour] = {
    "ginger": (236, 142, 56),
    "black": (52, 50, 60),
    "white": (246, 245, 242),
    "gray": (150, 156, 168),
    "brown": (134, 88, 58),
    "cream": (247, 219, 172),
    "siamese": (238, 222, 200),
    "calico": (250, 244, 236),
}
EYES: dict[str, Colour] = {
    "green": (72, 196, 84),
    "blue": (58, 140, 245),
    "yellow": (252, 222, 58),
    "orange": (244, 122, 24),
    "purple": (172, 84, 222),
}
GROUNDS: dict[str, Colour] = {
    "blue": (84, 136, 226),
    "green": (92, 182, 104),
    "pink": (246, 164, 194),
    "purple": (144, 98, 196),
    "orange": (246, 152, 64),
    "yellow": (248, 216, 92),
    "red": (214, 72, 72),
    "teal": (60, 174, 178),
    "gray": (136, 140, 146),
    "white": (238, 238, 236),
}
ACCESSORIES: tuple[str, ...] = ("none", "hat", "glasses", "bow", "scarf", "crown")
TINTS: dict[str, Colour] = {
    "red": (214, 44, 52),
    "blue": (44, 86, 206),
    "green": (36, 146, 74),
    "purple": (132, 56, 176),
}
MOODS: tuple[str, ...] = ("calm", "happy", "grumpy", "sleepy")
LEVELS: dict[str, tuple[str, ...]] = {
    "fur": tuple(FURS),
    "eyes": tuple(EYES),
    "ground": tuple(GROUNDS),
    "accessory": ACCESSORIES,
    "tint": tuple(TINTS),
    "mood": MOODS,
    "pattern": ("plain", "striped"),
    "focus": ("sharp", "blurry"),
}
"""Every named attribute and the values it takes."""

ACCESSORY_ODDS = (0.25, 0.17, 0.17, 0.14, 0.14, 0.13)
MOOD_ODDS = (0.34, 0.26, 0.2, 0.2)
STRIPED_ODDS = 0.25
BLURRY_ODDS = 0.05
UNSTRIPED_FURS = ("siamese", "calico")


@dataclass(frozen=True)
class Cat:
    """One portrait: its named attributes, and the pose that no caption mentions.

    Lengths are in pixels of the finished picture, angles in radians.
    """

    fur: str = "ginger"
    eyes: str = "green"
    ground: str = "blue"
    accessory: str = "none"
    tint: str = "red"
    mood: str = "calm"
    pattern: str = "plain"
    focus: str = "sharp"
    x: float = 32.0
    y: float = 34.0
    size: float = 19.0
    tilt: float = 0.0
    ears: float = 1.0
    width: float = 1.0

    def labels(self) -> list[int]:
        """The position of each attribute's value in `LEVELS`, in the order of `LEVELS`."""
        return [values.index(getattr(self, name)) for name, values in LEVELS.items()]


def sample_cat(rng: np.random.Generator) -> Cat:
    """Draw one cat from the distribution of the training pictures."""
    fur = str(rng.choice(list(FURS)))
    striped = fur not in UNSTRIPED_FURS and rng.random() < STRIPED_ODDS
    accessory = str(rng.choice(ACCESSORIES, p=ACCESSORY_ODDS))
    size = rng.uniform(17.0, 20.5)
    return Cat(
        fur=fur,
        eyes=str(rng.choice(list(EYES))),
        ground=str(rng.choice(list(GROUNDS))),
        accessory=accessory,
        tint=str(rng.choice(list(TINTS))),
        mood=str(rng.choice(MOODS, p=MOOD_ODDS)),
        pattern="striped" if striped else "plain",
        focus="blurry" if rng.random() < BLURRY_ODDS else "sharp",
        x=32.0 + rng.uniform(-5.0, 5.0),
        y=35.0 + rng.uniform(-2.0, 3.0),
        size=size,
        tilt=rng.uniform(-0.26, 0.26),
        ears=rng.uniform(0.85, 1.2),
        width=rng.uniform(0.95, 1.12),
    )


def with_wrong_words(cat: Cat, odds: float, rng: np.random.Generator) -> Cat:
    """Exchange each attribute with probability `odds` for a random other value (the pose stays)."""
    swaps = {
        name: str(rng.choice([value for value in values if value != getattr(cat, name)]))
        for name, values in LEVELS.items()
        if name != "focus" and rng.random() < odds
    }
    return replace(cat, **swaps)  # type: ignore[arg-type]  # every swapped field is a string
