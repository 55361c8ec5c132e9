"""What recipes must know of a checkpoint: all but its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from farm.render.parameterization import Parameterization, parameterization_of
from farm.weights.embedding import Embedding
from farm.weights.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What a recipe must know of a checkpoint.

    Attributes:
        scheduler_config: as in `scheduler/scheduler_config.json`: how the UNet's numbers are read.
        text_layers: of the text encoder; the largest clip_skip.
        tokenizer: turns texts into what the text encoder takes.
        device: where its tensors lie.
        is_precise: whether its networks work in fp32, so that nothing is left to try where numbers overflow.
    """

    scheduler_config: Mapping[str, Any]
    text_layers: int
    tokenizer: Tokenizer
    device: torch.device
    is_precise: bool = True
    _parameterizations: dict[bool | None, Parameterization] = field(default_factory=dict)

    def knowing(self, embeddings: Mapping[str, Embedding]) -> "Model":
        """The same, to which prompts can name these embeddings."""
        return replace(self, tokenizer=self.tokenizer.knowing(embeddings)) if embeddings else self

    def parameterization(self, zero_terminal_snr: bool | None) -> Parameterization:
        """As `parameterization_of`, read once: it is the same for all cells."""
        if zero_terminal_snr not in self._parameterizations:
            read = parameterization_of(self.scheduler_config, zero_terminal_snr)
            self._parameterizations[zero_terminal_snr] = read
        return self._parameterizations[zero_terminal_snr]
