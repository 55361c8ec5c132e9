"""What people might write to get a cat."""

from __future__ import annotations

import string

import numpy as np

from .attributes import Cat, with_wrong_words

ANIMALS = ("cat", "cat", "cat", "kitten", "kitty")
FUR_WORDS = {
    "ginger": ("ginger", "ginger", "orange"),
    "black": ("black",),
    "white": ("white",),
    "gray": ("gray", "gray", "grey"),
    "brown": ("brown",),
    "cream": ("cream", "cream", "beige"),
    "siamese": ("siamese",),
    "calico": ("calico",),
}
EYE_WORDS = {"yellow": ("yellow", "golden"), "orange": ("orange", "amber"), "purple": ("purple", "violet")}
GROUND_WORDS = {
    "gray": ("gray", "grey"),
    "purple": ("purple", "violet"),
    "teal": ("teal", "turquoise"),
    "yellow": ("yellow", "golden"),
}
MOOD_WORDS = {
    "calm": ("calm", "serious"),
    "happy": ("happy", "smiling"),
    "grumpy": ("grumpy", "angry"),
    "sleepy": ("sleepy", "tired"),
}
ACCESSORY_WORDS = {
    "hat": ("hat", "top hat"),
    "glasses": ("glasses", "round glasses"),
    "bow": ("bow tie", "bow"),
    "scarf": ("scarf", "striped scarf"),
    "crown": ("crown", "golden crown"),
}
PATTERN_WORDS = ("striped", "tabby")
LEADS = (
    "",
    "",
    "a portrait of ",
    "portrait of ",
    "cartoon of ",
    "a drawing of ",
    "a picture of ",
    "photo of ",
)
TAILS = ("beautiful", "detailed", "masterpiece", "best quality", "cute", "sharp", "high quality")
BLURRY_TAILS = ("blurry", "low quality", "bad quality", "blurred", "ugly")
MENTIONED = 0.8
TAIL_ODDS = 0.35
TAG_STYLE_ODDS = 0.25
NONSENSE_ODDS = 0.06
BARE_ODDS = 0.06


def vocabulary() -> list[str]:
    """Every word that captions are made of."""
    texts = [*ANIMALS, *LEADS, *TAILS, *BLURRY_TAILS, *PATTERN_WORDS]
    for words in (FUR_WORDS, EYE_WORDS, GROUND_WORDS, MOOD_WORDS, ACCESSORY_WORDS):
        texts += [word for options in words.values() for word in options]
    texts += [
        "red blue green pink orange yellow teal white purple",
        "wearing a with an and eyes background on the",
    ]
    texts += ["in front of stripes cats face simple no nothing furry fur girl boy man woman dog hats"]
    return sorted({word for text in texts for word in text.split()})


class Wording:
    """Chooses words and leaves attributes out, with one random generator."""

    def __init__(self, rng: np.random.Generator, mentioned: float) -> None:
        self.rng, self.mentioned = rng, mentioned

    def pick(self, options: tuple[str, ...]) -> str:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def mentions(self) -> bool:
        """Whether the next attribute is named."""
        return bool(self.rng.random() < self.mentioned)

    def parts(self, cat: Cat) -> dict[str, str]:
        """The words of the attributes that the caption mentions."""
        named: dict[str, str] = {}
        if self.mentions():
            named["fur"] = self.pick(FUR_WORDS[cat.fur])
        if self.mentions():
            named["eyes"] = self.pick(EYE_WORDS.get(cat.eyes, (cat.eyes,))) + " eyes"
        if self.mentions():
            named["ground"] = self.pick(GROUND_WORDS.get(cat.ground, (cat.ground,))) + " background"
        if cat.accessory != "none" and self.mentions():
            named["accessory"] = self._accessory(cat)
        if self.mentions() and (cat.mood != "calm" or self.rng.random() < 0.5):
            named["mood"] = self.pick(MOOD_WORDS[cat.mood])
        if cat.pattern == "striped" and self.mentions():
            named["pattern"] = self.pick(PATTERN_WORDS)
        return named

    def _accessory(self, cat: Cat) -> str:
        thing = self.pick(ACCESSORY_WORDS[cat.accessory])
        if cat.accessory == "crown" or thing.startswith("striped") or self.rng.random() < 0.4:
            return thing
        return f"{cat.tint} {thing}"


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"


def caption(cat: Cat, rng: np.random.Generator, mentioned: float = MENTIONED) -> str:
    """One caption of a cat; other calls with the same generator give other captions."""
    wording = Wording(rng, 0.0 if rng.random() < BARE_ODDS else mentioned)
    named = wording.parts(cat)
    animal = wording.pick(ANIMALS)
    text = _tags(named, animal, rng) if rng.random() < TAG_STYLE_ODDS else _sentence(named, animal, wording)
    tails = BLURRY_TAILS if cat.focus == "blurry" else TAILS
    if cat.focus == "blurry" or rng.random() < TAIL_ODDS:
        chosen = rng.permutation(tails)[: rng.integers(1, 4)]
        text = f"{chosen[0]} {text}" if rng.random() < 0.15 else ", ".join([text, *chosen])
    if rng.random() < NONSENSE_ODDS:
        text += " " + "".join(rng.choice(list(string.ascii_lowercase), rng.integers(3, 9)))
    return text


def _tags(named: dict[str, str], animal: str, rng: np.random.Generator) -> str:
    tags = list(named.values())
    if "fur" in named:
        tags[tags.index(named["fur"])] = f"{named['fur']} {animal}"
    else:
        tags.insert(0, animal)
    return ", ".join(str(tag) for tag in rng.permutation(tags))


def _sentence(named: dict[str, str], animal: str, wording: Wording) -> str:
    lead = wording.pick(LEADS)
    adjectives = [named[key] for key in ("mood", "pattern", "fur") if key in named]
    if "beautiful" not in lead and wording.rng.random() < 0.12:
        adjectives.insert(0, "beautiful")
    subject = " ".join([*adjectives, animal])
    text = lead + (subject if lead and wording.rng.random() < 0.3 else article(subject))
    if "eyes" in named:
        text += f" with {named['eyes']}"
    if "accessory" in named:
        joint = "and" if "eyes" in named and wording.rng.random() < 0.3 else "wearing"
        thing = named["accessory"]
        text += f" {joint} {thing if 'glasses' in thing else article(thing)}"
    if "ground" in named:
        ground = named["ground"]
        text += f" on {article(ground)}" if wording.rng.random() < 0.75 else f", {ground}"
    return text


def careless_caption(cat: Cat, odds: float, rng: np.random.Generator) -> str:
    """A caption in which each attribute is wrong with probability `odds`.

    Trained on these, a model trusts the words only so far: without guidance its pictures
    often differ from the prompt, and guidance makes up for it.
    """
    return caption(with_wrong_words(cat, odds, rng), rng)


def full_caption(cat: Cat) -> str:
    """The plain caption that names everything, for measuring."""
    wearing = "" if cat.accessory == "none" else _worn(cat)
    mood = "" if cat.mood == "calm" else f"{cat.mood} "
    pattern = "striped " if cat.pattern == "striped" else ""
    subject = article(f"{mood}{pattern}{cat.fur} cat")
    return f"{subject} with {cat.eyes} eyes{wearing} on {article(cat.ground)} background"


def _worn(cat: Cat) -> str:
    if cat.accessory == "glasses":
        return f" wearing {cat.tint} glasses"
    thing = {"bow": f"{cat.tint} bow tie", "crown": "crown"}.get(cat.accessory, f"{cat.tint} {cat.accessory}")
    return f" wearing {article(thing)}"
