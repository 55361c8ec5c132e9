"""PEFT's settings of an adapter: what its files leave open, since alpha is no tensor of theirs."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "lora_adapter_metadata"
"""Of a safetensors file's metadata: where diffusers writes them, as JSON."""


@dataclass(frozen=True, slots=True)
class PeftSettings:
    """Of one network's adapter.

    Attributes:
        alpha: of all layers but those that a pattern names; None is each one's rank.
        alphas: by the ends of paths, which is all that patterns are used for; the first that fits counts.
        rank: of what has none that could be seen.
        is_stabilized: whether it is divided by the rank's square root (rsLoRA, arXiv:2312.03732).
    """

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank: int | None = None
    is_stabilized: bool = False

    def scale(self, path: str, rank: int | None) -> float:
        """What a layer's product is multiplied by.

        Args:
            path: of the layer.
            rank: of the product; None of one that is not of two thin matrices.
        """
        rank = rank or self.rank
        fitting = (alpha for end, alpha in self.alphas.items() if path == end or path.endswith(f".{end}"))
        alpha = next(fitting, self.alpha)
        if alpha is None or rank is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.is_stabilized else rank)


def peft_settings(metadata: Mapping[str, str], network: str) -> PeftSettings:
    """The settings of a network's adapter; without any, alpha is the rank.

    Args:
        metadata: of a safetensors file. Files of pipelines have each network's name before its settings,
            files of a single network have none.
        network: as diffusers calls it.

    Raises:
        ValueError: they cannot be read.
    """
    if KEY not in metadata:
        return PeftSettings()
    try:
        whole = json.loads(metadata[KEY])
        own = {
            key.removeprefix(f"{network}."): value for key, value in whole.items() if key.startswith(network)
        }
        return _read(own if any("." in key for key in whole) else whole)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its metadata, {KEY}, is not what PEFT writes") from error


def _read(settings: Mapping[str, Any]) -> PeftSettings:
    alpha = settings.get("lora_alpha", settings.get("alpha"))  # of LoRA, and of LoHa and LoKr
    patterns = settings.get("alpha_pattern") or {}
    alphas = {pattern.removeprefix("^").replace("\\.", "."): float(own) for pattern, own in patterns.items()}
    rank = settings.get("r")
    return PeftSettings(
        None if alpha is None else float(alpha),
        alphas,
        None if rank is None else int(rank),
        bool(settings.get("use_rslora")),
    )
