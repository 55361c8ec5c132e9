"""What is known of the files of a catalog, remembered from one command to the next."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from farm.weights.places import Kind


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file.

    Attributes:
        kind: what it is; None if nobody knows.
        family: of the checkpoints that it is, or is for; empty if that cannot be told.
        form: of a LoRA: `lora`, `locon`, `loha`, `lokr`; of others empty.
        base_model: that it was trained on, as its maker calls it.
        trigger_words: that bring it out, as its maker says.
        said_hash: of its tensors, as its maker wrote it into it.
        fault: one line, why it cannot be used; empty if nothing is wrong.
    """

    kind: Kind | None = None
    family: str = ""
    form: str = ""
    base_model: str = ""
    trigger_words: tuple[str, ...] = ()
    said_hash: str = ""
    fault: str = ""


def as_json(facts: Facts) -> dict[str, Any]:
    """As it can be written into a file."""
    return asdict(facts)


def from_json(entry: Any) -> Facts | None:
    """What `as_json` made; None if it is anything else, as another version may have written it."""
    if not isinstance(entry, Mapping) or set(entry) != {field.name for field in fields(Facts)}:
        return None
    kinds = {str(kind): kind for kind in Kind}
    texts = [entry[name] for name in ("family", "form", "base_model", "said_hash", "fault")]
    words = entry["trigger_words"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(words, list):
        return None
    return Facts(**{**entry, "kind": kinds.get(str(entry["kind"])), "trigger_words": tuple(map(str, words))})
