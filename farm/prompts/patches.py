"""What tags of a prompt do to the networks: LoRA and hypernetworks, with their weights."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from farm.prompts.emphasis import number_of
from farm.prompts.grammar import parse
from farm.prompts.tree import Tag, limited

LORA_TAGS = ("lora", "lyco")
HYPERNETWORK = "hypernet"

Scales = tuple[tuple[str, float], ...]
"""Names as tags have them, each with a weight that is not 0."""

_KEPT = 20_000


class OnUnet(NamedTuple):
    """What is done to the UNet.

    Attributes:
        loras: in the order of their names, since what they add is summed up.
        hypernetworks: in the order of the prompt, since each acts on what the one before it made.
    """

    loras: Scales = ()
    hypernetworks: Scales = ()

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Equal for rows that can share a call, whatever their weights."""
        return _names(self) if self.loras or self.hypernetworks else ((), ())


@lru_cache(_KEPT)
def _names(on_unet: OnUnet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    loras, hypernetworks = (tuple(sorted({name for name, _ in each})) for each in on_unet)
    return loras, hypernetworks


class Patches(NamedTuple):
    """What tags do.

    Attributes:
        on_unet: to the UNet.
        on_text: by LoRA to the text encoders.
    """

    on_unet: OnUnet = OnUnet()
    on_text: Scales = ()

    @property
    def loras(self) -> tuple[str, ...]:
        """The names of all LoRA that do something, in order."""
        return tuple(sorted({name for name, _ in (*self.on_unet.loras, *self.on_text)}))

    @property
    def hypernetworks(self) -> tuple[str, ...]:
        """The names of all hypernetworks that do something, in order."""
        return tuple(sorted({name for name, _ in self.on_unet.hypernetworks}))


@lru_cache(_KEPT)
def patches_of(prompt: str) -> Patches:
    """What the tags of a prompt do.

    ``<lora:name:weight>``, ``<lora:name:weight of the text encoder:weight of the UNet>``, or with `te=` and
    `unet=`, as in A1111 (extensions-builtin/Lora/extra_networks_lora.py); weights of a name that stands there
    twice add up. ``<hypernet:name:strength>``. A weight that is no number counts as 1.

    Args:
        prompt: not the negative one, whose tags are text.
    """
    tags = parse(prompt).tags
    unet: dict[str, float] = {}
    text: dict[str, float] = {}
    for tag in tags:
        if tag.kind in LORA_TAGS and (name := tag.arguments[0].strip()):
            of_text, of_unet = _weights(tag)
            text[name] = text.get(name, 0.0) + of_text
            unet[name] = unet.get(name, 0.0) + of_unet
    hypernetworks = tuple(
        (tag.arguments[0].strip(), strength)
        for tag in tags
        if tag.kind == HYPERNETWORK and tag.arguments[0].strip() and (strength := _number(tag.arguments, 1))
    )
    return Patches(OnUnet(_scales(unet), hypernetworks), _scales(text))


def tag_of(kind: str, name: str, weight: float) -> str:
    """A tag as it is written."""
    return f"<{kind}:{name}:{weight:g}>"


def _scales(weights: dict[str, float]) -> Scales:
    return tuple(sorted((name, weight) for name, weight in weights.items() if weight))


def _weights(tag: Tag) -> tuple[float, float]:
    """Of the text encoder, and of the UNet."""
    named = {
        name.strip(): value for name, _, value in (one.partition("=") for one in tag.arguments[1:]) if value
    }
    positional = [tag.arguments[0], *(one for one in tag.arguments[1:] if "=" not in one)]
    of_text = _number([tag.arguments[0], named["te"]], 1) if "te" in named else _number(positional, 1)
    if "unet" in named:
        return of_text, _number([tag.arguments[0], named["unet"]], 1)
    return of_text, _number(positional, 2) if len(positional) > 2 else of_text


def _number(arguments: Sequence[str], place: int) -> float:
    number = number_of(arguments[place].strip()) if place < len(arguments) else 1.0
    return 1.0 if number is None else limited(number)
