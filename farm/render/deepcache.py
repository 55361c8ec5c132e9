"""Deep features of a row used again at its next evaluations: DeepCache, Ma et al. 2023 (arXiv:2312.00858).

Features deep in a UNet change slowly from one evaluation to the next. A full pass gives them away where the
decoder meets a skip connection; a shallow pass takes them there, and computes only the layers outside: the
encoder's up to that skip connection, and the decoder's from there on. Branches are counted by the skip
connections that a shallow pass computes, from the outermost, 0.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel

from farm.cell import Settings
from farm.errors import CellFailed
from farm.render.compiled import plainly
from farm.render.told import Added, in_diffusers
from farm.weights.fit import TEXT_AND_SIZES

_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")
_UNUSUAL = (
    "class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "time_cond_proj_dim",
    "center_input_sample",
)  # fmt: skip
"""Of a UNet's configuration, what changes its forward pass beside its blocks."""


@dataclass(frozen=True, slots=True)
class DeepCache:
    """How a cell uses features again.

    Attributes:
        interval: evaluations from one full pass of a row to the next, 2 or more.
        branch: the innermost skip connection that shallow passes compute.
    """

    interval: int
    branch: int


def deepcache_of(settings: Settings) -> DeepCache | None:
    """What the settings ask for; None if all of each row is to be computed."""
    if settings.deepcache_interval == 1:
        return None
    return DeepCache(settings.deepcache_interval, settings.deepcache_branch)


class Features:
    """The deep features of a cell's rows, each held for as long as it will be used again.

    Args:
        deepcache: how; None keeps none.
    """

    def __init__(self, deepcache: DeepCache | None) -> None:
        self._interval = 1 if deepcache is None else deepcache.interval
        self._held: dict[Hashable, tuple[int, torch.Tensor]] = {}

    def take(self, row: Hashable, evaluation: int) -> torch.Tensor | None:
        """The features for a row at an evaluation; None if it makes new ones.

        Args:
            row: names the row over all evaluations.
            evaluation: its number.
        """
        if row not in self._held:
            return None
        made, features = self._held[row]
        age = evaluation - made
        if age + 1 >= self._interval:  # this is their last use, or was
            del self._held[row]
        return features if age < self._interval else None

    def drop_older(self, evaluation: int) -> None:
        """Lets go of features that no evaluation from this one on can use, of rows that were left out."""
        self._held = {row: held for row, held in self._held.items() if evaluation - held[0] < self._interval}

    def kept(
        self, rows: Sequence[Hashable], evaluation: int, answers: Sequence[Any]
    ) -> tuple[torch.Tensor, ...]:
        """The outputs among the answers to some rows; features that came with them are held."""
        outputs = []
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, tuple):
                answer, features = answer
                self._held[row] = (evaluation, features)
            outputs.append(answer)
        return tuple(outputs)


class _Layer(NamedTuple):
    """A step of the encoder or the decoder.

    Attributes:
        resnet: the block's; of the decoder it takes the skip connection as well.
        attention: behind it, if there is one.
        resamplers: of the decoder those behind it; of the encoder the whole layer, if it is one.
    """

    resnet: Any
    attention: Any
    resamplers: tuple[Any, ...] = ()


def with_features(
    unet: Any,
    branch: int,
    inputs: torch.Tensor,
    times: torch.Tensor,
    states: torch.Tensor,
    added: Added = (),
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A full pass; returns its output, and for each row the features where the branch begins.

    Args:
        unet: the network.
        branch: the innermost skip connection of shallow passes.
        inputs: `(rows, channels, height/8, width/8)`.
        times: `(rows,)`.
        states: of the texts `(rows, tokens, channels)`.
        added: what else the rows are told.

    Raises:
        CellFailed: the network has no such branch.
    """
    encoder, decoder = _layers(unet, branch)
    skipped = unet.conv_in.out_channels if branch == 0 else _channels(encoder[branch - 1])
    found: list[torch.Tensor] = []

    def look(_: Any, arguments: tuple[Any, ...]) -> None:
        deep = arguments[0][:, :-skipped]
        found.extend(row.clone() for row in deep.unbind(0))  # a view would keep the batch in memory

    hook = decoder[-1 - branch].resnet.register_forward_pre_hook(look)
    try:
        output = plainly(unet)(inputs, times, states, *added)
    finally:
        hook.remove()
    return output, found


def shallow_output(
    unet: Any,
    branch: int,
    inputs: torch.Tensor,
    times: torch.Tensor,
    states: torch.Tensor,
    features: torch.Tensor,
    added: Added = (),
) -> torch.Tensor:
    """A shallow pass; returns its output.

    Args:
        unet: the network.
        branch: the innermost skip connection that is computed.
        inputs: `(rows, channels, height/8, width/8)`.
        times: `(rows,)`.
        states: of the texts `(rows, tokens, channels)`.
        features: of the rows, as `with_features` gives them.
        added: what else the rows are told.

    Raises:
        CellFailed: the network has no such branch.
    """
    encoder, decoder = _layers(unet, branch)
    time = unet.time_embedding(unet.get_time_embed(sample=inputs, timestep=times))
    if added:
        time = time + unet.get_aug_embed(time, states, in_diffusers(added))
    if unet.time_embed_act is not None:
        time = unet.time_embed_act(time)
    skips = [unet.conv_in(inputs)]
    for layer in encoder[:branch]:
        hidden = skips[-1]
        for resampler in layer.resamplers:
            hidden = resampler(hidden)
        skips.append(_through(layer, hidden, time, states))
    hidden = features
    for layer in decoder[-1 - branch :]:
        hidden = _through(layer, torch.cat([hidden, skips.pop()], dim=1), time, states)
        for resampler in layer.resamplers:
            hidden = resampler(hidden, skips[-1].shape[2:])
    if unet.conv_norm_out:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    output: torch.Tensor = unet.conv_out(hidden)
    return output


def _through(layer: _Layer, hidden: torch.Tensor, time: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    if layer.resnet is not None:
        hidden = layer.resnet(hidden, time)
    if layer.attention is not None:
        hidden = layer.attention(hidden, encoder_hidden_states=states, return_dict=False)[0]
    return hidden


def _encoder(unet: Any) -> list[_Layer]:
    """What makes the skip connections, but for the first; each begins with the one before."""
    found: list[_Layer] = []
    for block in unet.down_blocks:
        found += [_Layer(*pair) for pair in _pairs(block)]
        if block.downsamplers is not None:
            found.append(_Layer(None, None, tuple(block.downsamplers)))
    return found


def _decoder(unet: Any) -> list[_Layer]:
    """What takes the skip connections, the innermost first."""
    found: list[_Layer] = []
    for block in unet.up_blocks:
        found += [_Layer(*pair) for pair in _pairs(block)]
        found[-1] = found[-1]._replace(resamplers=tuple(block.upsamplers or ()))
    return found


def _pairs(block: Any) -> Iterator[tuple[Any, Any]]:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return zip(block.resnets, attentions, strict=True)


def _channels(layer: _Layer) -> int:
    """Of the skip connection that a layer of the encoder makes."""
    return int((layer.resnet or layer.resamplers[0]).out_channels)


def _layers(unet: Any, branch: int) -> tuple[list[_Layer], list[_Layer]]:
    """The encoder and the decoder, of which a shallow pass takes the outer layers."""
    if odd := next(_odd(unet), None):
        raise CellFailed(f"deepcache_interval: a network with {odd} cannot use features again")
    encoder, decoder = _encoder(unet), _decoder(unet)
    if branch >= len(decoder):
        has = f"it has {len(decoder)} skip connections, and {len(decoder) - 1} is the last"
        raise CellFailed(f"deepcache_branch: {branch} is too much for this network: {has}")
    return encoder, decoder


def _odd(unet: Any) -> Iterator[str]:
    """What shallow passes know nothing of."""
    if not issubclass(type(unet), UNet2DConditionModel):
        yield type(unet).__name__
        return
    for block in (*unet.down_blocks, *unet.up_blocks):
        if type(block).__name__ not in _BLOCKS:
            yield type(block).__name__
    yield from (name for name in _UNUSUAL if unet.config.get(name))
    if unet.config.get("addition_embed_type") not in (None, TEXT_AND_SIZES):
        yield "addition_embed_type"
