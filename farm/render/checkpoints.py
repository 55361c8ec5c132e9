"""The checkpoints that a device holds: loaded when they are asked, gone to the host when others need room."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from farm.ordering import LOADED_AT_ONCE
from farm.render.compiled import Compiled
from farm.render.device import dtype_for
from farm.render.files import LoadVae
from farm.render.host import Host
from farm.render.memory import HOST, Memory
from farm.render.model import Model
from farm.render.placement import Placed, Rung, rung_for
from farm.render.requests import Weights
from farm.render.tuning import tuned
from farm.render.vaes import Vaes
from farm.weights.checkpoint import Networks
from farm.weights.device_errors import is_out_of_memory
from farm.weights.fit import takes_sizes
from farm.weights.tokenizer import Tokenizer
from farm.work import Kind

FOR_ROWS = 3 / 4
"""Of the device's memory: what checkpoints beyond those in use leave free."""

LoadNetworks = Callable[[str, torch.device, torch.dtype], Networks]


@dataclass(slots=True)
class Loaded:
    """A checkpoint on the device, and what was made of it.

    Attributes:
        networks: where they lie.
        compiled: the UNet, if it is; let go where memory is short.
        model: what recipes must know of it.
        precise_vae: in fp32, once it was asked; let go where memory is short.
    """

    networks: Placed
    compiled: Compiled | None
    model: Model
    precise_vae: Any = None


class Checkpoints:
    """Holds as many as there is room for.

    Args:
        load: reads a checkpoint, by its name, onto a device in a type; here onto the host.
        device: what the networks compute on.
        memory: of the device.
        compiles: whether UNets are compiled.
        note: is told, in a line for people, how it goes.
        loading: is entered while a checkpoint or a VAE is loaded.
        making: is entered while calls are made faster.
        load_vae: reads a VAE, by its name.
        reads_ahead: whether a checkpoint, by its name, can be read while something is computed.
    """

    def __init__(
        self,
        load: LoadNetworks,
        device: torch.device,
        memory: Memory,
        compiles: bool,
        note: Callable[[str], None],
        loading: Callable[[Kind], AbstractContextManager[None]],
        making: Callable[[], AbstractContextManager[None]],
        load_vae: LoadVae,
        reads_ahead: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._load = load
        self._device = device
        self._memory = memory
        self._compiles = compiles
        self._note = note
        self._loading = loading
        self._reads_ahead = reads_ahead
        self._making = making
        self._vaes = Vaes(load_vae, memory, loading)
        self._host = Host(self._read, memory)
        self._loaded: OrderedDict[Weights, Loaded] = OrderedDict()
        self._idle: set[Weights] = set()
        self.most = LOADED_AT_ONCE
        """That may be in use at once, and are held at least; one, after two did not fit beside each other."""

    def of(self, weights: Weights) -> Loaded:
        """The checkpoint, loaded if it is not there; the longest unused make room for it."""
        if weights not in self._loaded:
            request = "bring back" if self._host.reserve(weights) else "load"
            with self._loading(Kind(request, weights.model, weights.precision)):
                while len(self._loaded) >= self.most and not self._holds_more:
                    self._let_leave(next(iter(self._loaded)))
                    self._memory.give_back()
                try:
                    self._loaded[weights] = self._begun(weights)
                except BaseException:
                    self._host.forget(weights)  # half of it may have been moved
                    raise
        self._idle.discard(weights)
        self._loaded.move_to_end(weights)
        return self._loaded[weights]

    @property
    def _holds_more(self) -> bool:
        """Whether there is room for one more, as large as the largest so far, that nothing in use lacks."""
        total, free = self._memory.total, self._memory.free
        if self.most == 1 or total is None or free is None:
            return False
        return free - self._host.largest >= total * FOR_ROWS

    def read_ahead(self, weights: Weights) -> bool:
        """Begins to read a checkpoint onto the host, beside what is computed; False until that is done.

        True, too, of what is there and of what cannot be read beside anything.
        """
        if weights in self._loaded or not self._reads_ahead(weights.model):
            return True
        return self._host.read_ahead(weights)

    def close(self) -> None:
        """Ends the thread that reads ahead."""
        self._host.close()

    def vae_of(self, weights: Weights, name: str, precise: bool) -> Any:
        """A VAE for what their UNet makes.

        Args:
            weights: of the checkpoint.
            name: of another one than theirs; empty for theirs.
            precise: whether it is to work in fp32, whatever its precision.
        """
        loaded = self.of(weights)
        if name:
            dtype = torch.float32 if precise else self.dtype(weights)
            return self._vaes.of(name, loaded.model.scaling_factor, dtype)
        if not precise:
            return loaded.networks.vae
        if loaded.precise_vae is None:
            loaded.precise_vae = copy.deepcopy(loaded.networks.vae).float()
        return loaded.precise_vae

    def done_with(self, weights: Weights) -> None:
        """Lets this one go before any others when room is needed: nothing in flight asks for it."""
        self._host.done_with(weights)
        if weights in self._loaded:
            self._idle.add(weights)
            self._loaded.move_to_end(weights, last=False)

    def dtype(self, weights: Weights) -> torch.dtype:
        """Of the networks; their own `dtype` walks through all their modules, at each call."""
        return dtype_for(weights.precision, self._device)

    def let_idle_go(self) -> bool:
        """Makes room by letting go what nothing in flight asks for; False if there is none of it."""
        idle = self._loaded.keys() & self._idle
        for weights in idle:
            self._let_leave(weights)
        self._idle.clear()
        is_more = self._memory.is_hosts and self._host.let_go()
        self._memory.give_back()
        return bool(idle) or is_more

    def let_others_go(self, weights: Weights) -> bool:
        """Makes room by letting all others go; False if there are none."""
        if not self._loaded.keys() - {weights}:
            return False
        for other in self._loaded.keys() - {weights}:
            self._let_leave(other)
        self.most = 1
        if self._memory.is_hosts:
            self._host.let_go()
        self._memory.give_back()
        return True

    def let_extras_go(self, weights: Weights, all_but_vae: bool, other_vae: str = "") -> bool:
        """Makes room by letting go what was made of a checkpoint, and VAEs; False if there is nothing.

        Args:
            weights: of the checkpoint.
            all_but_vae: whether the VAE in fp32 is to stay.
            other_vae: the name of one that is to stay; of no other checkpoint's.
        """
        went = self._vaes.let_go(other_vae)
        loaded = self._loaded.get(weights)
        if loaded is None:
            self._memory.give_back()
            return went
        extras = [loaded.compiled, None if all_but_vae else loaded.precise_vae]
        if loaded.compiled is not None:
            self._note(
                f"{weights.model}: goes on without its compiled UNet, for want of room on {self._device}"
            )
        loaded.compiled = None
        if not all_but_vae:
            loaded.precise_vae = None
        self._memory.give_back()
        return went or any(extra is not None for extra in extras)

    def lower(self, weights: Weights) -> bool:
        """Makes room by moving weights to the host; False if there is nothing more to gain by it."""
        loaded = self._loaded.get(weights)
        if loaded is None:
            return False
        self._host.forget(weights)
        try:
            is_lower = loaded.networks.lower()
        except Exception:
            del self._loaded[weights]  # half of it may have been moved
            raise
        self._tell(weights, loaded.networks)
        return is_lower

    def _begun(self, weights: Weights) -> Loaded:
        """Once more, with nothing beside it, where memory was too short."""
        placed = self._placed(weights)
        if placed is None:
            self._vaes.let_go()
            self._let_all_go()
            self._host.forget(weights)
            self._host.let_go()
            placed = Placed(self._host.take(weights), self._memory)
        if placed.rung != Rung.WHOLE:
            self._host.forget(weights)
        self._tell(weights, placed)
        if self._device.type == "cpu" and self.dtype(weights) == torch.float16:
            self._note(f"{weights.model}: fp16 is slow on a CPU; fp32 is not")
        compiles = self._compiles and placed.rung == Rung.WHOLE
        compiled = Compiled(placed.unet, self._device, self._note, self._making) if compiles else None
        return Loaded(placed, compiled, self._described(placed.networks, weights))

    def _placed(self, weights: Weights) -> Placed | None:
        """None for want of memory; in a method of its own, since an exception holds on to what it met."""
        try:
            networks = self._host.take(weights)
            if self._loaded and rung_for(networks, self._memory) != Rung.WHOLE:
                self.most = 1
                self._let_all_go()
            return Placed(networks, self._memory)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _read(self, weights: Weights) -> Networks:
        return tuned(self._load(weights.model, HOST, self.dtype(weights)), self._device)

    def _let_all_go(self) -> None:
        if self._loaded:
            self.most = 1
        for weights in tuple(self._loaded):
            self._let_leave(weights)
        self._memory.give_back()

    def _let_leave(self, weights: Weights) -> None:
        """For the host, if there is room; what was made of it goes."""
        del self._loaded[weights]
        self._host.leave(weights)

    def _tell(self, weights: Weights, placed: Placed) -> None:
        for note in placed.notes:
            self._note(f"{weights.model}: {note}")
        placed.notes.clear()

    def _described(self, networks: Networks, weights: Weights) -> Model:
        dtype, is_told_sizes = self.dtype(weights), takes_sizes(networks.unet)
        # not the networks themselves: whoever holds a Model must not keep them on the device
        tokenizer, *others = (
            Tokenizer(clip, encoder.config.max_position_embeddings)
            for clip, encoder in zip(networks.tokenizers, networks.text_encoders, strict=True)
        )
        return Model(
            scheduler_config=networks.scheduler_config,
            text_layers=min(encoder.config.num_hidden_layers for encoder in networks.text_encoders),
            tokenizer=tokenizer,
            tokenizer_2=others[0] if others else None,
            device=self._device,
            is_precise=dtype == torch.float32,
            takes_sizes=is_told_sizes,
            input_channels=networks.unet.config.in_channels,
            # diffusers asks this of SDXL's VAEs alone; that of 1.5 says it too, and needs it not
            scaling_factor=networks.vae.config.scaling_factor,
            decodes_precisely=is_told_sizes and dtype == torch.float16 and networks.vae.config.force_upcast,
        )
