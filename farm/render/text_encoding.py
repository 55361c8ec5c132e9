"""Chunks of text become states, by one text encoder or by two."""

from collections.abc import Sequence
from typing import Any

import torch

from farm.render.told import Encoded

PENULTIMATE = 2
"""The last layer that SDXL's texts are taken from, whatever `clip_skip` says: it was trained with that."""


def encoded_texts(encoders: Sequence[Any], tokens: Sequence[torch.Tensor], clip_skip: int) -> list[Encoded]:
    """What the text encoders make of each chunk.

    One encoder's states go through its final norm, whatever layer they are from, as in A1111 and diffusers.
    Those of two, as SDXL has them, do not; and the last one also projects the text as a whole.

    Args:
        encoders: a `CLIPTextModel`, and a `CLIPTextModelWithProjection` if there is a second one.
        tokens: for each encoder `(rows, positions)`.
        clip_skip: 1 for the last layer, n for the n-th from the end.
    """
    outputs = [encoder(ids, output_hidden_states=True) for encoder, ids in zip(encoders, tokens, strict=True)]
    if len(encoders) == 1:
        states = encoders[0].final_layer_norm(outputs[0].hidden_states[-clip_skip])
        return [Encoded((row,)) for row in states.unbind(0)]
    layer = -max(clip_skip, PENULTIMATE)
    by_encoder = [output.hidden_states[layer].unbind(0) for output in outputs]
    pooled = outputs[-1].text_embeds.unbind(0)
    return [Encoded(tuple(states), whole) for *states, whole in zip(*by_encoder, pooled, strict=True)]
