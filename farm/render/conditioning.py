"""What the networks are told: texts, encoded piece by piece and shared, become the conditions of guidance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch

from farm.cell import Settings
from farm.costs import guiding_strands
from farm.prompts.chunks import Chunk
from farm.prompts.emphasis import weighted
from farm.prompts.strands import Strand
from farm.render.device import onto
from farm.render.guidance import Condition, Stage
from farm.render.model import Model
from farm.render.requests import Coroutine, EncodeText, Share, Weights
from farm.render.weighting import WEIGHTINGS
from farm.sampling import Samplers
from farm.weights.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text as it is encoded: names the states `(chunks · positions, channels)` that come of it.

    Attributes:
        weights: whose text encoder.
        clip_skip: 1 for the last layer, n for the n-th from the end.
        emphasis: what weights do, a row of `farm.render.weighting`; empty if there are none.
        chunks: encoded one by one and joined; without weights where these do nothing.
    """

    weights: Weights
    clip_skip: int
    emphasis: str
    chunks: tuple[Chunk, ...]


def conditions_of(settings: Settings, weights: Weights, model: Model, samplers: Samplers) -> Coroutine:
    """The rows of guidance, every text encoded once for all cells that have it; returns `Condition`s.

    Texts that follow each other in a schedule are filled up to as many chunks as the longest has, and the
    parts of an AND with their last state to the length of the longest, both as in A1111.
    """
    strands = guiding_strands(settings, samplers)
    encodings = [_encodings(strand, settings, weights, model.tokenizer) for strand in strands]
    wanted = list(dict.fromkeys(encoding for row in encodings for encoding in row.values()))
    answers = yield tuple(
        Share(encoding, partial(_encoded, encoding, model.tokenizer)) for encoding in wanted
    )
    states = dict(zip(wanted, cast(tuple[torch.Tensor, ...], answers), strict=True))
    longest = max(
        (_length(states, row) for strand, row in zip(strands, encodings) if strand.conditional), default=0
    )
    return tuple(
        _condition(strand, row, states, longest if strand.conditional else 0)
        for strand, row in zip(strands, encodings, strict=True)
    )


def _encodings(
    strand: Strand, settings: Settings, weights: Weights, tokenizer: Tokenizer
) -> dict[str, Encoding]:
    """How each text of a strand is encoded."""
    said = strand.said
    chunks = {text: tokenizer.chunks(weighted(text)) for text in (*said.texts, *said.others)}
    count = max(map(len, chunks.values()))
    return {
        text: _encoding(settings, weights, [*chunks[text], *[Chunk()] * (count - len(chunks[text]))])
        for text in said.texts
    }


def _encoding(settings: Settings, weights: Weights, chunks: Sequence[Chunk]) -> Encoding:
    if settings.emphasis != "ignore" and any(chunk.is_weighted for chunk in chunks):
        return Encoding(weights, settings.clip_skip, settings.emphasis, tuple(chunks))
    return Encoding(weights, settings.clip_skip, "", tuple(Chunk(chunk.tokens) for chunk in chunks))


def _length(states: dict[Encoding, torch.Tensor], row: dict[str, Encoding]) -> int:
    return next(len(states[encoding]) for encoding in row.values())


def _condition(
    strand: Strand, row: dict[str, Encoding], states: dict[Encoding, torch.Tensor], longest: int
) -> Condition:
    lengthened = {text: _lengthened(states[encoding], longest) for text, encoding in row.items()}
    stages = tuple(
        Stage(last, (row[text], len(lengthened[text])), lengthened[text])
        for last, text in strand.said.schedule
    )
    return Condition(stages, strand.coefficient, strand.weight)


def _lengthened(states: torch.Tensor, length: int) -> torch.Tensor:
    """The states with the last one repeated up to a length."""
    missing = length - len(states)
    return torch.cat((states, states[-1:].expand(missing, -1))) if missing > 0 else states


def _encoded(encoding: Encoding, tokenizer: Tokenizer, generator: torch.Generator) -> Coroutine:
    """The recipe of an encoding: its chunks, and the empty one if the weights are measured against it."""
    weighting = WEIGHTINGS.get(encoding.emphasis)
    chunks = [*encoding.chunks, Chunk()] if weighting and weighting.needs_empty else list(encoding.chunks)
    states = yield tuple(_chunk(chunk, encoding, tokenizer) for chunk in chunks)
    if weighting is None:
        return torch.cat(states)
    return torch.cat(
        [
            weighting.apply(chunk_states, _multipliers(chunk, chunk_states), states[-1])
            if chunk.is_weighted
            else chunk_states
            for chunk, chunk_states in zip(encoding.chunks, states)
        ]
    )


def _chunk(chunk: Chunk, encoding: Encoding, tokenizer: Tokenizer) -> Share:
    """Chunks are shared as well: texts with other weights, or with another ending, have them in common."""
    known, tokens = tokenizer.embeddings_of(chunk), tokenizer.filled(chunk)
    request = EncodeText(encoding.weights, tokens, encoding.clip_skip, embeddings=known)
    key = ("chunk", request.weights, request.tokens, request.clip_skip)
    return Share(key, lambda _: _answered(request))


def _answered(request: EncodeText) -> Coroutine:
    return (yield request)


def _multipliers(chunk: Chunk, states: torch.Tensor) -> torch.Tensor:
    """A factor for each position `(positions, 1)`: 1 for the begin mark and all behind the tokens."""
    factors = torch.ones(len(states), 1, dtype=torch.float32)
    factors[1 : 1 + len(chunk.weights), 0] = torch.tensor(chunk.weights, dtype=torch.float32)
    return onto(factors, states.device)
