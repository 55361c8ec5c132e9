"""CLIP's tokenizer, as the text encoder of a checkpoint wants its chunks."""

import json
from collections.abc import Hashable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from transformers import CLIPTokenizer

from farm.errors import FarmError, described
from farm.prompts.chunks import Chunk, chunked
from farm.prompts.emphasis import Section
from farm.prompts.vectors import Name, Names, Token, Vector

if TYPE_CHECKING:  # which imports torch, that `farm prompt` can do without
    from farm.weights.embedding import Embedding

POSITIONS = 77
"""That CLIP's text encoder has."""

CLIP = Path(__file__).parent / "clip_tokenizer"
"""The folder of CLIP's own, as Stable Diffusion 1.x and 2.x have it."""


def load_tokenizer(folder: Path, pads_with_zero: bool = False) -> Any:
    """CLIP's tokenizer; without its files the library would make one that knows no words.

    Args:
        folder: with `tokenizer.json`, or `vocab.json` and `merges.txt`.
        pads_with_zero: whether token 0, `!`, fills texts up, as OpenCLIP does it; else the folder says it.

    Raises:
        FileNotFoundError: if it has neither.
    """
    whole, parts = folder / "tokenizer.json", [folder / "vocab.json", folder / "merges.txt"]
    if not whole.is_file() and not all(part.is_file() for part in parts):
        raise FileNotFoundError(f"{folder} has neither tokenizer.json nor vocab.json and merges.txt")
    padding: dict[str, Any] = {"pad_token": "!"} if pads_with_zero else {}
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, **padding)


def tokenizer_of(checkpoint: Path | None) -> "Tokenizer":
    """The tokenizer of a checkpoint, without its networks; CLIP's own if it is a file, or there is none.

    Raises:
        FarmError: it cannot be read.
    """
    try:
        if checkpoint is None or checkpoint.is_file():  # single files have none
            return Tokenizer(load_tokenizer(CLIP), POSITIONS)
        config = json.loads((checkpoint / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        return Tokenizer(load_tokenizer(checkpoint / "tokenizer"), config["max_position_embeddings"])
    except Exception as error:  # whatever the libraries raise about files that are missing, torn or foreign
        raise FarmError(
            f"the tokenizer of {checkpoint or CLIP} cannot be read: {described(error)}"
        ) from error


class Tokenizer:
    """Turns pieces of text into chunks of tokens.

    Args:
        clip: the library's tokenizer.
        positions: that the text encoder has, begin and end marks included.
        embeddings: by the names that prompts call them.
    """

    def __init__(
        self, clip: Any, positions: int, embeddings: "Mapping[str, Embedding]" = MappingProxyType({})
    ) -> None:
        self._clip = clip
        self._positions = positions
        self._embeddings = embeddings
        self._knowing: dict[Hashable, Tokenizer] = {}
        self.room = positions - 2

    def knowing(self, embeddings: "Mapping[str, Embedding]") -> "Tokenizer":
        """One that finds these embeddings in texts, by names in their order; made once, as many cells ask."""
        named = tuple((name, one.key) for name, one in embeddings.items())
        if named not in self._knowing:
            self._knowing[named] = Tokenizer(self._clip, self._positions, embeddings)
        return self._knowing[named]

    @cached_property
    def _names(self) -> Names:
        known = self._embeddings.items()
        names = (Name(name, tuple(self.ids(name)), one.key, one.count) for name, one in known)
        return Names(names, self.room)

    @cached_property
    def _by_key(self) -> "dict[str, Embedding]":
        return {one.key: one for one in self._embeddings.values()}

    @cached_property
    def comma(self) -> int | None:
        """The id of a comma that stands alone or ends a word."""
        found: int | None = self._clip.get_vocab().get(",</w>")
        return found

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without begin and end marks."""
        found: list[int] = self._clip(text, add_special_tokens=False, verbose=False).input_ids
        return found

    def words(self, tokens: Iterable[Token]) -> list[str]:
        """What tokens stand for, as far as they are whole characters; ``</w>`` ends a word."""
        return [self._word(token) for token in tokens]

    def _word(self, token: Token) -> str:
        if isinstance(token, Vector):
            return f"{self._by_key[token.key].name}#{token.index + 1}</w>"
        text = self._clip.decode([token], clean_up_tokenization_spaces=False).strip()
        return f"{text}</w>" if self._clip.convert_ids_to_tokens(token).endswith("</w>") else text

    def chunks(self, sections: Iterable[Section]) -> list[Chunk]:
        """The chunks of a text, at least one."""
        return chunked(sections, self.ids, self.comma, self.room, self._names)

    def embeddings_of(self, chunk: Chunk) -> "dict[str, Embedding]":
        """Those whose vectors stand in a chunk, by their keys."""
        return {token.key: self._by_key[token.key] for token in chunk.tokens if isinstance(token, Vector)}

    def filled(self, chunk: Chunk) -> tuple[Token, ...]:
        """What the encoder is given: begin mark, tokens, end mark, and padding in all other positions."""
        begin, end, padding = self._clip.bos_token_id, self._clip.eos_token_id, self._clip.pad_token_id
        return (begin, *chunk.tokens, end, *[padding] * (self.room - len(chunk.tokens)))
