"""What recipes must know of a checkpoint: all but its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from farm.render.parameterization import Parameterization, parameterization_of
from farm.scheduler_names import as_predicting
from farm.weights.embedding import Embedding
from farm.weights.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What a recipe must know of a checkpoint.

    Attributes:
        scheduler_config: as in `scheduler/scheduler_config.json`: how the UNet's numbers are read.
        text_layers: of the text encoder, or the fewer of two; the largest clip_skip.
        tokenizer: turns texts into what the text encoder takes.
        device: where its tensors lie.
        is_precise: whether its networks work in fp32, so that nothing is left to try where numbers overflow.
        tokenizer_2: of the second text encoder, if there is one; it has the same words.
        takes_sizes: whether the UNet is told a pooled text and sizes besides, as SDXL's is.
        input_channels: of the UNet's input.
        decodes_precisely: whether the VAE works in fp32 at once, since it says that it would overflow.
        scaling_factor: of latents.
    """

    scheduler_config: Mapping[str, Any]
    text_layers: int
    tokenizer: Tokenizer
    device: torch.device
    is_precise: bool = True
    tokenizer_2: Tokenizer | None = None
    takes_sizes: bool = False
    input_channels: int = 4
    decodes_precisely: bool = False
    scaling_factor: float = 1.0
    _parameterizations: dict[object, Parameterization] = field(default_factory=dict)

    def knowing(self, embeddings: Mapping[str, Embedding]) -> "Model":
        """The same, to which prompts can name these embeddings."""
        if not embeddings:
            return self
        second = self.tokenizer_2 and self.tokenizer_2.knowing(embeddings)
        return replace(self, tokenizer=self.tokenizer.knowing(embeddings), tokenizer_2=second)

    def parameterization(
        self, zero_terminal_snr: bool | None, prediction_type: str | None = None
    ) -> Parameterization:
        """As `parameterization_of`, read once: it is the same for all cells.

        Args:
            zero_terminal_snr: as there.
            prediction_type: what the UNet predicts; None is as the checkpoint says.
        """
        key = (zero_terminal_snr, prediction_type)
        if key not in self._parameterizations:
            config = as_predicting(self.scheduler_config, prediction_type)
            self._parameterizations[key] = parameterization_of(config, zero_terminal_snr)
        return self._parameterizations[key]
