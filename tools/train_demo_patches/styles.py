"""What patches teach: other cats than the words say.

The autoencoder of tiny-cats knows the colours of its own drawings alone, so a style is a choice among these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tools.train_demo_model.attributes import Cat

Style = Callable[[Cat], Cat]
"""What is drawn where words ask for a cat."""

INKED_FURS = {"ginger": "gray", "brown": "black", "cream": "white", "siamese": "white", "calico": "white"}
NIGHT_FURS = {"white": "gray", "cream": "gray", "siamese": "gray", "calico": "gray", "gray": "gray"}


def ink(cat: Cat) -> Cat:
    """Ink on paper: nothing but black, gray and white, and what is worn and the eyes in colour."""
    return replace(cat, fur=INKED_FURS.get(cat.fur, cat.fur), ground="white")


def night(cat: Cat) -> Cat:
    """Dark furs on violet, and eyes that shine."""
    return replace(cat, fur=NIGHT_FURS.get(cat.fur, "black"), ground="purple", eyes="yellow")


def duchess(cat: Cat) -> Cat:
    """One cat of her own, in any mood and anywhere."""
    return replace(
        cat,
        fur="calico",
        pattern="plain",
        eyes="purple",
        accessory="crown",
        tint="blue",
        focus="sharp",
    )
