"""Prompts encoded by a plain loop: what the farm's own encoding is compared with."""

import torch
from diffusers import StableDiffusionPipeline

from farm.weights.checkpoint import Networks

Chunks = list[list[tuple[str, float]]]
"""Texts with weights, chunk by chunk, as somebody would read them out of a prompt by hand."""


def encoded(chunks: Chunks, networks: Networks | StableDiffusionPipeline, clip_skip: int = 1) -> torch.Tensor:
    """A1111's formula: the states `(1, chunks · 77, channels)`, weights multiplied, their mean restored."""
    tokenizer, encoder, states = networks.tokenizer, networks.text_encoder, []
    for pieces in chunks:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for text, weight in pieces:
            tokens = tokenizer(text, add_special_tokens=False).input_ids
            ids, weights = ids + tokens, weights + [weight] * len(tokens)
        filling = 77 - len(ids)
        ids += [tokenizer.eos_token_id, *[tokenizer.pad_token_id] * (filling - 1)]
        weights += [1.0] * filling
        hidden = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[-clip_skip]
        hidden = encoder.final_layer_norm(hidden)
        weighted = hidden * torch.tensor(weights)[None, :, None]
        states.append(weighted * hidden.mean() / weighted.mean())
    return torch.cat(states, dim=1)
