"""Networks on a device with too little memory: real ones, on the CPU, whose memory is counted."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farm.cell import Settings
from farm.render.capacity import Capacity
from farm.render.deepcache import shallow_output, with_features
from farm.render.engine import Engine
from farm.render.files import Files
from farm.render.memory import HOST, Memory
from farm.render.offloading import Streamed, bytes_of
from farm.render.placement import Placed, Rung
from farm.render.recipes import text_to_image
from farm.render.renderer import Renderer
from farm.render.requests import Decode, EncodeText, Open, Predict, Weights
from farm.render.runner import Runner
from farm.render.token_merging import tokens_merged
from farm.render.told import Conditioning
from farm.weights.checkpoint import Networks
from tests.render.rendering import LEVELS, Counting, apart, render
from tests.render.scarce import OnDevice, Scarce, Telling
from tests.render.test_deepcache import inputs, unet
from tests.render.test_renderer import changed, finish

pytestmark = pytest.mark.slow  # many pictures are made

CELLS = [
    changed(steps=2),
    changed(sampler="Heun", steps=2, seed=18, prompt="a (ginger:1.3) cat"),
    changed(sampler="DPM++ 2M Karras", steps=3, width=96),
]


@pytest.fixture
def own(networks: Networks) -> Networks:
    """Networks that a test can move about."""
    parts = {name: copy.deepcopy(getattr(networks, name)) for name in ("unet", "vae", "text_encoder")}
    return Networks(tokenizer=networks.tokenizer, scheduler_config=networks.scheduler_config, **parts)


@pytest.fixture(scope="module")
def pictures(networks: Networks) -> list[np.ndarray]:
    """As they are where there is room for everything."""
    return render(CELLS, Counting(networks))


def sizes(networks: Networks) -> tuple[int, int, int]:
    unet, text, vae = (
        bytes_of(part.parameters()) for part in (networks.unet, networks.text_encoder, networks.vae)
    )
    return unet, text, vae


def limit_for(rung: Rung, networks: Networks) -> int:
    """What a rung can just do with; tensors of a group begin at round addresses. The last needs far less."""
    unet, text, vae = sizes(networks)
    return {
        Rung.WHOLE: unet + text + vae,
        Rung.VISITING: unet + int(1.02 * max(text, vae)),
        Rung.STREAMED: unet + max(text, vae) - 1,
    }[rung]


@pytest.mark.parametrize("rung", Rung)
def test_pictures_are_the_same_to_the_bit_wherever_the_weights_lie(
    rung: Rung, own: Networks, pictures: list[np.ndarray]
) -> None:
    memory = Scarce(limit_for(rung, own))
    runner = Counting(own, memory=memory)
    with OnDevice(memory):
        again = render(CELLS, runner)
    assert all(map(np.array_equal, again, pictures))
    [placed] = [loaded.networks for loaded in runner._checkpoints._loaded.values()]
    assert placed.rung == rung and len(runner.notes) == (rung != Rung.WHOLE)
    unet, text, vae = sizes(own)
    most = {
        Rung.WHOLE: unet + text + vae,
        Rung.VISITING: unet + max(text, vae),
        Rung.STREAMED: max(text, vae) + unet // 4,
    }[rung]
    assert memory.most <= most * 1.02


@pytest.mark.parametrize("rung", [Rung.WHOLE, Rung.VISITING])
def test_what_does_not_fit_after_all_is_placed_lower(
    rung: Rung, own: Networks, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free is only known about; the networks of before are on the device in part."""
    monkeypatch.setattr("farm.render.placement.rung_for", lambda *_: rung)
    unet, *others = sizes(own)
    memory = Scarce(unet + (sum(others) if rung == Rung.WHOLE else 0) - 1)
    placed = Placed(own, memory)
    assert placed.rung == rung + 1
    [note] = placed.notes
    assert note.endswith("there was no room for more on cpu")
    assert all(map(np.array_equal, render(CELLS, Counting(own, memory=memory)), pictures))


def test_notes_say_where_the_weights_lie_and_why(own: Networks) -> None:
    def notes(limit: int) -> list[str]:
        return Placed(own, Scarce(limit)).notes

    assert notes(limit_for(Rung.VISITING, own)) == [
        "text encoder and VAE wait on the host until they are asked: 0.0 GiB are free on cpu"
    ]
    [note] = notes(limit_for(Rung.STREAMED, own))
    assert note.startswith("the UNet's 0.0 GiB of weights wait on the host and come by groups of at most ")
    assert Placed(own, Memory(HOST)).notes == []


def test_nothing_is_moved_where_it_would_not_help(own: Networks) -> None:
    assert not Placed(own, Memory(HOST)).lower()  # the host's own memory
    assert not Placed(own, Scarce(11 * sum(sizes(own)))).lower()  # a large device
    placed = Placed(own, Scarce(9 * sum(sizes(own))))
    assert [placed.lower(), placed.lower(), placed.lower()] == [True, True, False]


def test_visitors_are_there_one_at_a_time_and_not_while_the_unet_computes(own: Networks) -> None:
    unet, text, vae = sizes(own)
    placed = Placed(own, memory := Scarce(limit_for(Rung.VISITING, own)))
    for part, size in (("vae", vae), ("text_encoders", text), ("vae", vae), ("unet", 0), ("unet", 0)):
        getattr(placed, part)
        assert unet + size <= memory.used <= unet + 1.02 * size


def test_there_is_not_room_for_parts(own: Networks) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Placed(own, Scarce(1000))
    errors = outcomes(CELLS[:2], Counting(own, memory=Scarce(1000)))
    assert all(str(error).startswith("it does not fit into the memory of cpu: ") for error in errors)


def test_a_checkpoint_that_does_not_fit_is_loaded_and_the_renderer_says_so_once(
    tiny_model: Path, own: Networks, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Scarce(sizes(own)[0])
    monkeypatch.setattr("farm.render.renderer.Memory", lambda _: memory)
    renderer = Renderer({"m": tiny_model}, "cpu")
    rendered = finish(renderer, CELLS)
    [said] = renderer.take_work().notes
    assert said.startswith("m: the UNet's 0.0 GiB of weights wait on the host")
    assert renderer.take_work().notes == ()
    again = {one.cell.number: np.asarray(one.image) for one in rendered}
    # not to the bit: how full its batches are hangs on when noise has been drawn
    assert all(apart(again[number], picture) <= LEVELS for number, picture in zip((1, 2, 3), pictures))


def test_another_checkpoint_leaves_before_weights_are_moved(own: Networks) -> None:
    """It is loaded again when it is asked again."""
    memory = Scarce(int(1.5 * sum(sizes(own))))
    loaded: list[str] = []

    def load(name: str, *_: object) -> Networks:
        loaded.append(name)
        return copy.deepcopy(own)

    runner = Runner(load, HOST, memory=memory)
    for name in ("a", "b", "b", "a"):
        runner.run([Open(Weights(name))])
    assert loaded == ["a", "b", "a"] and runner.notes == []
    assert memory.used == sum(sizes(own))


class Needy:
    """Lets a network's part take memory for what it computes, in proportion to the rows and their area."""

    def __init__(self, part: Any, memory: Scarce, per_point: int) -> None:
        self.rows: list[int] = []
        self.memory, self.per_point = memory, per_point
        self.hook = part.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = arguments[0] if arguments else next(iter(named.values()))
        self.rows.append(len(first))
        self.memory.needs(first.shape[0] * first.shape[-1] * first.shape[-2] * self.per_point)


POINTS = 8 * 8
"""Of the latents of a picture of 64 × 64."""


def outcomes(cells: Sequence[Settings], runner: Counting) -> list[Any]:
    """The picture or the error of each."""
    engine = Engine(runner, Capacity(HOST))
    for number, settings in enumerate(cells):
        engine.submit(number, text_to_image(settings))
    ended: dict[Any, Any] = {}
    while engine.in_flight:
        ended |= {one.name: one.error or one.result.pixels.numpy() for one in engine.step()}
    return [ended[number] for number in range(len(cells))]


@pytest.mark.parametrize("free", [0.3, 0.7, 1.2], ids=["after two rungs", "after two", "at once"])
def test_a_unet_that_computes_in_much_memory_makes_room_for_itself(
    free: float, own: Networks, networks: Networks
) -> None:
    """Batches are halved first; alone it moves the weights."""
    unet, *_ = sizes(own)
    memory = Scarce(int(sum(sizes(own)) + free * unet))
    needy = Needy(own.unet, memory, int(unet / POINTS))
    cells = [changed(steps=2, seed=seed, sampler="Euler") for seed in range(3)]
    got = outcomes(cells, runner := Counting(own, memory=memory))
    alone = [render([cell], Counting(networks))[0] for cell in cells]
    assert max(int(np.abs(one.astype(int) - two.astype(int)).max()) for one, two in zip(got, alone)) <= 2
    assert 1 in needy.rows and bool(runner.notes) == (free < 1)


def only_of_64(module: Any, arguments: tuple[torch.Tensor]) -> None:
    if arguments[0].shape[-1] > 8:
        raise torch.OutOfMemoryError("out of memory")


def test_decoding_halves_its_batch_then_moves_weights_then_goes_by_strips_then_fails(
    own: Networks, networks: Networks
) -> None:
    memory = Scarce(2 * sum(sizes(own)))
    needy = Needy(own.vae.decoder, memory, memory.limit // POINTS)
    runner = Counting(own, memory=memory)
    cells = [changed(steps=1, seed=seed) for seed in range(4)]
    got = outcomes(cells, runner)
    wanted = [render([cell], Counting(networks))[0] for cell in cells]
    assert max(int(np.abs(one.astype(int) - two.astype(int)).max()) for one, two in zip(got, wanted)) <= 2
    assert needy.rows == [4, 2, 1, 1]
    assert [note.split(":")[0] for note in runner.notes] == ["m"] * 2
    assert [note.split()[1] for note in runner.notes] == ["text", "pictures"]
    assert runner.notes[-1] == "m: pictures of 64 × 64 are decoded in strips, for want of room on cpu"
    own.vae.decoder.conv_in.register_forward_pre_hook(only_of_64)
    other, failed = outcomes([cells[0], changed(steps=1, width=72)], runner)
    assert np.abs(other.astype(int) - wanted[0].astype(int)).max() <= 2
    assert isinstance(failed, torch.OutOfMemoryError)


@pytest.mark.slow
def test_where_there_is_room_for_one_checkpoint_each_is_loaded_about_once(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is tried beside the first, whose cells are finished before it comes again."""
    loaded: list[str] = []

    def load(folder: Path, *_: Any) -> Networks:
        loaded.append(folder.name)
        return copy.deepcopy(networks)

    monkeypatch.setattr("farm.render.renderer.load_checkpoint", load)
    room = [Scarce(int(share * sum(sizes(networks)))) for share in (2.5, 1.5)]
    for memory, loads in zip(room, ("ab", "abab")):
        loaded.clear()
        monkeypatch.setattr("farm.render.renderer.Memory", lambda _, memory=memory: memory)
        renderer = Renderer({"a": Path("a"), "b": Path("b")}, "cpu", rows=8)
        cells = [changed(model=model, seed=seed, steps=6 + seed) for model in "ab" for seed in range(6)]
        rendered = finish(renderer, cells)
        assert not [one.error for one in rendered if one.error] and len(rendered) == 12
        assert "".join(loaded) == loads


def test_another_checkpoint_goes_before_the_own_weights_are_moved(networks: Networks) -> None:
    memory, made = Scarce(int(2.3 * sum(sizes(networks)))), {}

    def load(name: str, *_: Any) -> Networks:
        made.clear()  # so that nobody but the runner holds the first
        made[name] = copy.deepcopy(networks)
        return made[name]

    runner = Runner(load, HOST, memory=memory)
    with torch.inference_mode():
        for name in ("a", "b"):
            runner.run([Open(Weights(name))])
        made["b"].unet.register_forward_pre_hook(lambda *_: memory.needs(int(0.5 * memory.limit)))
        runner.run([Predict(Weights("b"), torch.zeros(4, 8, 8), 5.0, Conditioning(torch.zeros(77, 128)))])
    [(weights, one)] = runner._checkpoints._loaded.items()
    assert (weights.model, one.networks.rung, runner.loaded_at_once) == ("b", Rung.WHOLE, 1)


def test_what_a_call_takes_is_measured_without_the_weights_that_come_for_it(own: Networks) -> None:
    unet, text_encoder, vae = sizes(own)
    memory, taken = Telling(int(unet + 1.1 * max(text_encoder, vae))), list[tuple[int, int]]()
    capacity = Capacity(HOST, memory=memory)
    capacity.note = lambda *what: taken.append(what[1:])  # type: ignore[method-assign]
    runner, weights = Runner(lambda *_: own, HOST, capacity=capacity, memory=memory), Weights("m")

    def compute(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        memory.room(100 * len(given[0]))

    own.unet.register_forward_pre_hook(compute)
    latents, states = torch.zeros(4, 8, 8), Conditioning(torch.zeros(77, 128))
    asked = [
        EncodeText(weights, (1,) * 77, 1),
        Predict(weights, latents, 5.0, states),
        Decode(weights, latents),
    ]
    with torch.inference_mode():
        for request in (*asked, *asked):
            runner.run([request] * 5)
    assert runner._checkpoints.of(weights).networks.rung == Rung.VISITING
    assert taken == [(6, 0), (6, 600), (6, 0)] * 2  # rows of the bucket
    assert runner.filled_up == 2  # of the UNet's first call, and the second's


class Beside:
    """Two checkpoints of which the second's rows take so much that few fit, and fewer beside the first.

    Attributes:
        rows: of the second one's calls.
    """

    def __init__(self, networks: Networks, monkeypatch: pytest.MonkeyPatch, row: float) -> None:
        whole = sum(sizes(networks))
        self.rows: list[int] = []
        self.memory = Scarce(int(2.5 * whole))

        def load(folder: Path, *_: Any) -> Networks:
            made = copy.deepcopy(networks)

            def look(module: Any, given: tuple[torch.Tensor, ...]) -> None:
                if folder.name == "b":
                    self.rows.append(len(given[0]))
                    self.memory.needs(int(len(given[0]) * row * whole))

            made.unet.register_forward_pre_hook(look)
            return made

        monkeypatch.setattr("farm.render.renderer.load_checkpoint", load)
        monkeypatch.setattr("farm.render.renderer.Memory", lambda _: self.memory)
        self.renderer = Renderer({"a": Path("a"), "b": Path("b")}, "cpu", rows=8)

    def render(self, cells: list[Settings]) -> None:
        assert not [one.error for one in finish(self.renderer, cells) if one.error]


@pytest.mark.parametrize(("row", "most"), [(0.2, 4), (0.6, 2)], ids=["several fit", "one fits"])
@pytest.mark.slow
def test_rows_are_many_again_once_another_checkpoint_has_gone(
    row: float, most: int, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which nothing asks for: it goes before fewer rows are taken for all time to come."""
    beside = Beside(networks, monkeypatch, row)
    beside.render([changed(model="a", steps=1)])
    beside.render([changed(model="b", seed=seed, steps=12, sampler="Euler") for seed in range(8)])
    assert (
        beside.rows[0] == 8
        and most <= max(beside.rows[-20:-4]) <= beside.memory.free / sum(sizes(networks)) / row
    )
    assert beside.renderer._runner.loaded_at_once == 2


class Captured(Scarce):
    """Keeps memory for graphs, as a card does, for as long as there are any."""

    kept = 0

    @property
    def free(self) -> int:
        return super().free - self._in_graphs

    def count_graphs(self) -> None:
        self._in_graphs = self.kept

    def give_back(self) -> None:
        self.count_graphs()


def test_what_was_captured_of_a_checkpoint_that_goes_is_free_for_the_next(own: Networks) -> None:
    memory = Captured(int(1.4 * sum(sizes(own))))
    runner = Runner(lambda *_: copy.deepcopy(own), HOST, memory=memory)
    runner._checkpoints.most = 1
    runner.run([Open(Weights("a"))])
    memory.kept = sum(sizes(own)) // 2
    memory.count_graphs()
    memory.kept = 0  # they end with the checkpoint
    runner.run([Open(Weights("b"))])
    assert runner._checkpoints.of(Weights("b")).networks.rung == Rung.WHOLE and runner.notes == []


def test_what_is_loaded_leaves_less_room_for_rows(own: Networks) -> None:
    memory = Scarce(4 * sum(sizes(own)))
    capacity, key = (
        Capacity(HOST, 64, memory=memory),
        Predict(Weights("a"), torch.zeros(4, 8, 8), 5.0, Conditioning(torch.zeros(77, 128))).batch_key,
    )
    runner = Runner(lambda *_: copy.deepcopy(own), HOST, capacity=capacity, memory=memory)
    limits = []
    for name in "ab":
        runner.run([Open(Weights(name))])
        capacity.note(key, 4, 4 * sum(sizes(own)) // 10)
        limits.append(capacity.limit(key))
    assert limits == [24, 16]  # three checkpoints' room, and two: a tenth for each row


def test_what_was_made_of_a_checkpoint_goes_first_and_that_is_tried(own: Networks) -> None:
    runner, weights, asked = Runner(lambda *_: own, HOST), Weights("m"), []

    def fail_beside_the_other_vae(*_: Any) -> None:
        asked.append(runner._checkpoints.of(weights).precise_vae is not None)
        if asked[-1]:
            raise torch.OutOfMemoryError("out of memory")

    own.unet.register_forward_pre_hook(fail_beside_the_other_vae)
    with torch.inference_mode():
        runner.run([Decode(weights, torch.zeros(4, 8, 8), precise=True)])
        runner.run([Predict(weights, torch.zeros(4, 8, 8), 5.0, Conditioning(torch.zeros(77, 128)))])
    assert asked == [True, False]


def test_other_vaes_go_for_a_checkpoint_that_does_not_fit_beside_them(own: Networks) -> None:
    asked = []

    def load(name: str, *_: Any) -> Networks:
        asked.append((name, bool(runner._checkpoints._vaes._held)))
        if asked[-1] == ("b", True):
            raise torch.OutOfMemoryError("out of memory")
        return own

    runner = Runner(load, HOST, files=Files(vae=lambda *_: own.vae))
    with torch.inference_mode():
        runner.run([Decode(Weights("a"), torch.zeros(4, 8, 8), vae="fine")])
        runner.run([Open(Weights("b"))])
    assert ("b", True) in asked and asked[-1] == ("b", False)


def test_a_host_without_memory_decodes_in_strips(own: Networks, pictures: list[np.ndarray]) -> None:
    """There nothing is known about memory but that it ran out."""

    def fail(module: Any, arguments: Any) -> None:
        raise MemoryError("cannot allocate")

    own.vae.decoder.register_forward_pre_hook(fail)
    runner = Counting(own)
    again = outcomes(CELLS, runner)
    assert max(int(np.abs(one.astype(int) - two.astype(int)).max()) for one, two in zip(again, pictures)) <= 2
    assert [note.split()[1] for note in runner.notes] == ["pictures", "pictures"]  # of two sizes


@torch.inference_mode()
def asked(unet: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 128, generator=generator)
    output: torch.Tensor = unet(x, torch.tensor([3.0, 900.0]), states, return_dict=False)[0]
    return output


@pytest.mark.parametrize("most", [0, 10**6, 10**9], ids=["layers", "blocks", "large blocks"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_streamed_network_is_on_the_device_where_it_computes(
    layout: torch.memory_format, most: int, own: Networks
) -> None:
    unet, memory = own.unet.to(memory_format=layout), Scarce(10**9)
    wanted = asked(unet)
    streamed = Streamed(unet, memory, most)
    with OnDevice(memory):
        assert all(torch.equal(asked(unet), wanted) for _ in range(3))
    assert memory.most == memory.used == 2 * streamed.largest
    streamed.end()
    assert memory.used == 0 and torch.equal(asked(unet), wanted)
    assert not any(module._forward_pre_hooks for module in unet.modules())


BRANCHES = (0, 5, 11)
"""The shallowest, the deepest, and one whose features come of a block's middle."""


@pytest.mark.parametrize("most", [0, 10**6, 10**9], ids=["layers", "blocks", "large blocks"])
@pytest.mark.parametrize("ratio", [0, 0.5])
@pytest.mark.slow
@torch.inference_mode()
def test_approximations_of_a_streamed_network_are_on_the_device(ratio: float, most: int) -> None:
    """A shallow pass calls layers of blocks, and not the blocks."""
    network, memory, given = unet(), Scarce(10**9), inputs(8, 8)

    def passes(branch: int) -> list[torch.Tensor]:
        with tokens_merged(network, ratio, given[0]):
            output, features = with_features(network, branch, *given)
            deep = torch.stack(features)
            return [output, *(shallow_output(network, branch, *given, deep) for _ in range(2))]

    wanted = [passes(branch) for branch in BRANCHES]
    streamed = Streamed(network, memory, most)
    with OnDevice(memory):
        got = [passes(branch) for branch in BRANCHES]
    streamed.end()
    assert all(map(torch.equal, sum(got, []), sum(wanted, [])))


def test_groups_are_there_before_they_are_asked(own: Networks) -> None:
    """From the third time on: the second learns what follows the last."""
    memory = Scarce(10**9)
    streamed = Streamed(own.unet, memory, 0)
    fetched: list[bool] = []
    inner = streamed._fetch

    def fetch(group: Any, number: int) -> None:
        fetched.append(streamed._last is group)
        inner(group, number)

    streamed._fetch = fetch  # type: ignore[method-assign]
    counts = []
    for _ in range(3):
        asked(own.unet)
        counts.append((len(fetched), sum(fetched)))
        fetched.clear()
    groups = counts[0][0]
    assert counts == [(groups, groups), (groups + 1, 1), (groups, 0)] and groups > 50


def test_a_network_that_changes_its_way_is_followed(own: Networks) -> None:
    memory = Scarce(10**9)
    vae, latents = own.vae, torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        picture = vae.decode(latents).sample
        encoded = vae.encode(picture).latent_dist.mean
        Streamed(vae, memory, 10**5)
        with OnDevice(memory):
            for _ in range(2):
                assert torch.equal(vae.decode(latents).sample, picture)
                assert torch.equal(vae.encode(picture).latent_dist.mean, encoded)
                assert torch.equal(vae.encode(picture).latent_dist.mean, encoded)
