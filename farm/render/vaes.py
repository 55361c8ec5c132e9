"""VAEs beside those of checkpoints: loaded when they are asked, held for whatever checkpoint asks next."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from farm.render.files import LoadVae
from farm.render.memory import Memory
from farm.render.tuning import tuned_vae
from farm.work import Kind

MOST = 4
"""That are held at once; one takes 0.2 to 0.3 GB."""

Key = tuple[str, float, torch.dtype]


class Vaes:
    """Holds some.

    Args:
        load: reads one onto a device.
        memory: of the device.
        loading: is entered while one is loaded.
    """

    def __init__(
        self, load: LoadVae, memory: Memory, loading: Callable[[Kind], AbstractContextManager[None]]
    ) -> None:
        self._load = load
        self._memory = memory
        self._loading = loading
        self._held: OrderedDict[Key, Any] = OrderedDict()

    def of(self, name: str, scaling_factor: float, dtype: torch.dtype) -> Any:
        """The VAE, loaded if it is not there; the longest unused makes room for it.

        Args:
            name: in the catalog.
            scaling_factor: of latents, as the checkpoint has it.
            dtype: that it works in.
        """
        key = (name, scaling_factor, dtype)
        if key not in self._held:
            with self._loading(Kind("load vae", name, str(dtype).removeprefix("torch."))):
                while len(self._held) >= MOST:
                    self._held.popitem(last=False)
                device = self._memory.device
                self._held[key] = tuned_vae(self._load(name, scaling_factor, device, dtype), device)
        self._held.move_to_end(key)
        return self._held[key]

    def let_go(self, but: str = "") -> bool:
        """Makes room by letting go all but those of a name; False if there are none."""
        others = [key for key in self._held if key[0] != but]
        for key in others:
            del self._held[key]
        return bool(others)
