"""What to do where a device has no room for a call: each way costs more than the one before."""

from collections.abc import Callable, Hashable, Sequence

import torch

from farm.render.capacity import Capacity
from farm.render.checkpoints import Checkpoints
from farm.render.patching import Patching
from farm.render.placement import Rung
from farm.render.requests import Decode, EncodeImage, Fetch, Request, Weights
from farm.render.strips import can_strip


class Room:
    """Makes it.

    Args:
        checkpoints: that are held.
        patching: what is held beside them.
        capacity: of batches, which may be larger again afterwards.
        device: whose room it is.
        note: is told, in a line for people, how it goes.

    Attributes:
        in_strips: batch keys of what is decoded in strips from then on.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        patching: Patching,
        capacity: Capacity | None,
        device: torch.device,
        note: Callable[[str], None],
    ) -> None:
        self._checkpoints = checkpoints
        self._patching = patching
        self._capacity = capacity
        self._device = device
        self._note = note
        self.in_strips: set[Hashable] = set()

    def made_for(self, requests: Sequence[Request]) -> bool:
        """Makes more room for requests that did not fit, if there is a way left; changes no picture.

        First goes what nothing in flight asks for. For a request that is alone the others go, then weights
        move to the host; a VAE works in strips before the UNet is moved for it.
        """
        request, held = requests[0], self._checkpoints
        if isinstance(request, Fetch):
            return False
        weights = request.weights
        if held.let_idle_go():
            return self._may_be_more(weights)
        if len(requests) > 1:
            return False
        is_precise = isinstance(request, EncodeImage | Decode) and request.precise
        vae = request.vae if isinstance(request, EncodeImage | Decode) else ""
        if (
            held.let_others_go(weights)
            or held.let_extras_go(weights, is_precise, vae)
            or self._patching.let_go(request)
        ):
            return self._may_be_more(weights)
        if isinstance(request, Decode) and held.of(weights).networks.rung != Rung.WHOLE:
            return self._begun_in_strips(request) or self._lowered(weights)
        return self._lowered(weights) or (isinstance(request, Decode) and self._begun_in_strips(request))

    def _lowered(self, weights: Weights) -> bool:
        return self._checkpoints.lower(weights) and self._may_be_more(weights)

    def _may_be_more(self, weights: Weights) -> bool:
        """True; of rows that were too many for the room there was."""
        if self._capacity is not None:
            self._capacity.try_more(weights)
        return True

    def _begun_in_strips(self, request: Decode) -> bool:
        vae = self._checkpoints.of(request.weights).networks.vae
        if request.batch_key in self.in_strips or not can_strip(vae):
            return False
        self.in_strips.add(request.batch_key)
        size = f"pictures of {request.kind.width} × {request.kind.height} are decoded in strips"
        self._note(f"{request.weights.model}: {size}, for want of room on {self._device}")
        return True
