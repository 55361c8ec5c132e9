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
from farm.prompts.patches import Scales, patches_of
from farm.prompts.strands import Strand
from farm.render.device import onto
from farm.render.guidance import Condition, Stage
from farm.render.model import Model
from farm.render.requests import Coroutine, EncodeText, Share, Weights
from farm.render.told import Conditioning, Encoded
from farm.render.weighting import WEIGHTINGS, Weighting
from farm.sampling import Samplers
from farm.weights.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text as it is encoded: names the states `(chunks · positions, channels)` that come of it.

    Attributes:
        weights: whose text encoders.
        clip_skip: 1 for the last layer, n for the n-th from the end.
        emphasis: what weights do, a row of `farm.render.weighting`; empty if there are none.
        chunks: encoded one by one and joined; without weights where these do nothing.
        loras: that act on the text encoders, with their weights.
    """

    weights: Weights
    clip_skip: int
    emphasis: str
    chunks: tuple[Chunk, ...]
    loras: Scales = ()


def conditions_of(settings: Settings, weights: Weights, model: Model, samplers: Samplers) -> Coroutine:
    """The rows of guidance, every text encoded once for all cells that have it; returns `Condition`s.

    Texts that follow each other in a schedule are filled up to as many chunks as the longest has, and the
    parts of an AND with their last state to the length of the longest, both as in A1111.
    """
    strands = guiding_strands(settings, samplers)
    encodings = [_encodings(strand, settings, weights, model.tokenizer) for strand in strands]
    wanted = list(dict.fromkeys(encoding for row in encodings for encoding in row.values()))
    answers = yield tuple(Share(encoding, partial(_encoded, encoding, model)) for encoding in wanted)
    texts = dict(zip(wanted, cast(tuple[Conditioning, ...], answers), strict=True))
    sizes = _sizes(settings, model.device) if model.takes_sizes else None
    longest = max(
        (_length(texts, row) for strand, row in zip(strands, encodings) if strand.conditional), default=0
    )
    return tuple(
        _condition(strand, row, texts, longest if strand.conditional else 0, sizes)
        for strand, row in zip(strands, encodings, strict=True)
    )


def _sizes(settings: Settings, device: torch.device) -> torch.Tensor:
    """As A1111 tells them: the picture was not scaled, and nothing was cut off."""
    size = (settings.height, settings.width)
    return onto(torch.tensor([*size, 0, 0, *size], dtype=torch.float32), device)


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
    loras = patches_of(settings.prompt).on_text
    if settings.emphasis != "ignore" and any(chunk.is_weighted for chunk in chunks):
        return Encoding(weights, settings.clip_skip, settings.emphasis, tuple(chunks), loras)
    return Encoding(weights, settings.clip_skip, "", tuple(Chunk(chunk.tokens) for chunk in chunks), loras)


def _length(texts: dict[Encoding, Conditioning], row: dict[str, Encoding]) -> int:
    return next(len(texts[encoding].states) for encoding in row.values())


def _condition(
    strand: Strand,
    row: dict[str, Encoding],
    texts: dict[Encoding, Conditioning],
    longest: int,
    sizes: torch.Tensor | None,
) -> Condition:
    """As in A1111, a UNet that is told sizes is told zeros of a negative prompt that is empty throughout."""
    is_nothing = sizes is not None and not strand.conditional and not any(strand.said.texts)

    def stage(last: int, text: str) -> Stage:
        states, pooled, _ = texts[row[text]]
        states = _lengthened(states, longest)
        if is_nothing:
            states, pooled = torch.zeros_like(states), None if pooled is None else torch.zeros_like(pooled)
        key = ("nothing" if is_nothing else row[text], len(states))
        return Stage(last, key, Conditioning(states, pooled, sizes))

    stages = tuple(stage(last, text) for last, text in strand.said.schedule)
    return Condition(stages, strand.coefficient, strand.weight)


def _lengthened(states: torch.Tensor, length: int) -> torch.Tensor:
    """The states with the last one repeated up to a length."""
    missing = length - len(states)
    return torch.cat((states, states[-1:].expand(missing, -1))) if missing > 0 else states


def _encoded(encoding: Encoding, model: Model, generator: torch.Generator) -> Coroutine:
    """The recipe of an encoding: its chunks, and the empty one if the weights are measured against it.

    Weights do what they do to each encoder's states by themselves, and nothing to the pooled text, which is
    the first chunk's: as in A1111.
    """
    weighting = WEIGHTINGS.get(encoding.emphasis)
    chunks = [*encoding.chunks, Chunk()] if weighting and weighting.needs_empty else list(encoding.chunks)
    answers: tuple[Encoded, ...] = yield tuple(_chunk(chunk, encoding, model) for chunk in chunks)
    by_encoder = [
        torch.cat([_weighted(weighting, *each, states[-1]) for each in zip(encoding.chunks, states)])
        for states in zip(*(answer.states for answer in answers), strict=True)
    ]
    states = by_encoder[0] if len(by_encoder) == 1 else torch.cat(by_encoder, dim=-1)
    return Conditioning(states, answers[0].pooled)


def _weighted(
    weighting: Weighting | None, chunk: Chunk, states: torch.Tensor, empty: torch.Tensor
) -> torch.Tensor:
    if weighting is None or not chunk.is_weighted:
        return states
    return weighting.apply(states, _multipliers(chunk, states), empty)


def _chunk(chunk: Chunk, encoding: Encoding, model: Model) -> Share:
    """Chunks are shared as well: texts with other weights, or with another ending, have them in common."""
    known = model.tokenizer.embeddings_of(chunk)
    tokens, tokens_2 = (one.filled(chunk) if one else () for one in (model.tokenizer, model.tokenizer_2))
    request = EncodeText(encoding.weights, tokens, encoding.clip_skip, tokens_2, known, encoding.loras)
    key = ("chunk", request.weights, request.tokens, request.clip_skip, request.loras)
    return Share(key, lambda _: _answered(request))


def _answered(request: EncodeText) -> Coroutine:
    return (yield request)


def _multipliers(chunk: Chunk, states: torch.Tensor) -> torch.Tensor:
    """A factor for each position `(positions, 1)`: 1 for the begin mark and all behind the tokens."""
    factors = torch.ones(len(states), 1, dtype=torch.float32)
    factors[1 : 1 + len(chunk.weights), 0] = torch.tensor(chunk.weights, dtype=torch.float32)
    return onto(factors, states.device)
