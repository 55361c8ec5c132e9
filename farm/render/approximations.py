"""Rows that are not simply a call of the UNet: with merged tokens, with deep features of an earlier row."""

from collections.abc import Sequence
from typing import Any

import torch

from farm.render.compiled import plainly
from farm.render.deepcache import shallow_output, with_features
from farm.render.requests import Predict
from farm.render.token_merging import tokens_merged
from farm.render.told import Added


def approximated(
    unet: Any,
    rows: Sequence[Predict],
    inputs: torch.Tensor,
    times: torch.Tensor,
    states: torch.Tensor,
    added: Added = (),
) -> list[Any]:
    """The answers of rows of one batch key.

    Args:
        unet: a `UNet2DConditionModel`.
        rows: what was asked.
        inputs: theirs `(rows, channels, height/8, width/8)`, in the UNet's type.
        times: theirs `(rows,)`.
        states: of their texts `(rows, tokens, channels)`.
        added: what else they are told.

    Raises:
        CellFailed: the network is not built so that this approximation could be made.
    """
    first = rows[0]
    with tokens_merged(unet, first.token_merging_ratio, inputs):
        if first.branch is None:
            return list(plainly(unet)(inputs, times, states, *added).float().unbind(0))
        if first.features is None:
            output, features = with_features(unet, first.branch, inputs, times, states, added)
            return list(zip(output.float().unbind(0), features, strict=True))
        features = [row.features for row in rows if row.features is not None]
        deep = torch.stack(features)
        output = shallow_output(unet, first.branch, inputs, times, states, deep, added)
        return list(output.float().unbind(0))
