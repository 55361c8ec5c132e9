"""Checkpoints that left the device, and the one that is read while others render."""

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from farm.cell import Cell
from farm.errors import CellFailed
from farm.render import memory as memory_module
from farm.render.host import PIECE, Host, page_lock, read_through
from farm.render.memory import HOST, Memory
from farm.render.offloading import bytes_of
from farm.render.renderer import Renderer
from farm.render.requests import Open, Predict, Weights
from farm.render.runner import Runner
from farm.render.told import Conditioning
from farm.weights.checkpoint import Networks
from tests.render.scarce import OnDevice, Scarce
from tests.render.test_placement import sizes
from tests.render.test_renderer import changed, finish

pytestmark = pytest.mark.slow  # many pictures are made

A, B, C = (Weights(name) for name in "abc")


class Reading:
    """Reads copies of networks, and notes whose.

    Attributes:
        asked: the names.
        thread: in which each was read.
        may_go_on: is waited for before a read ends.
        begun: is set when one begins.
    """

    def __init__(self, networks: Networks, broken: str = "") -> None:
        self.networks, self.broken = networks, broken
        self.asked: list[str] = []
        self.threads: dict[str, str] = {}
        self.may_go_on, self.begun = threading.Event(), threading.Event()
        self.may_go_on.set()

    def __call__(self, name: Any, *_: Any) -> Networks:
        name = getattr(name, "name", getattr(name, "model", name))
        self.asked.append(name)
        self.threads[name] = threading.current_thread().name
        self.begun.set()
        assert self.may_go_on.wait(60)
        if name in self.broken:
            raise CellFailed(f"{name} is broken")
        return copy.deepcopy(self.networks)


def ends(host: Host) -> None:
    """Waits for what is read ahead."""
    assert host._ahead is not None
    host._ahead[1].exception(60)


class Replacing(Scarce):
    """Lets modules have other parameters when they move, as PyTorch does for some devices."""

    def bring(self, network: nn.Module) -> None:
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.data, requires_grad=False))
        super().bring(network)


@pytest.mark.parametrize("kind", [Scarce, Replacing])
def test_what_leaves_the_device_comes_back_as_it_was_and_is_not_read_again(
    kind: type[Scarce], networks: Networks
) -> None:
    whole = sum(sizes(networks))
    memory = kind(int(2.5 * whole))
    memory.host_limit = 3 * whole
    runner = Runner(read := Reading(networks), HOST, memory=memory)
    row = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    states = Conditioning(torch.zeros(77, 128))
    with torch.inference_mode(), OnDevice(memory):
        answers = []
        for weights in (A, B, C, A, B, C):
            runner.run([Open(weights)])
            answers.append(runner.run([Predict(weights, row, 5.0, states)])[0])
            assert memory.used <= 2 * whole
    assert read.asked == ["a", "b", "c"] and runner.loaded_at_once == 2 and runner.notes == []
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize(("limit", "held"), [(3, "ab"), (11.9, "cd"), (12.1, "bcd"), (16.1, "abcd")])
def test_a_large_device_holds_more_than_are_in_use(limit: float, held: str, networks: Networks) -> None:
    """A quarter of it at most; as many are in use as ever."""
    runner = Runner(read := Reading(networks), HOST, memory=Scarce(int(limit * sum(sizes(networks)))))
    for name in "abcd" if limit > 3 else "ab":
        runner.run([Open(Weights(name))])
    assert {weights.model for weights in runner._checkpoints._loaded} == set(held)
    assert runner.loaded_at_once == 2 and len(read.asked) == len(set(read.asked))


@pytest.mark.parametrize(("room", "again"), [(0, "abca"), (0.9, "abca"), (2.1, "abca"), (3.1, "abc")])
def test_only_so_much_is_kept_as_there_is_room_for(room: float, again: str, networks: Networks) -> None:
    """On a device apart from the host, what is in use there has its place on the host all the same."""
    memory = Scarce(int(2.5 * sum(sizes(networks))))
    memory.host_limit = int(room * sum(sizes(networks)))
    runner = Runner(read := Reading(networks), HOST, memory=memory)
    for weights in (A, B, C, A):
        runner.run([Open(weights)])
    assert "".join(read.asked) == again


class Small(Memory):
    """The host's own memory, with room for so many bytes beside what is in use."""

    def __init__(self, room: float) -> None:
        super().__init__(HOST)
        self.limit = room

    def can_keep(self, kept: int, more: int) -> bool:
        return kept + more <= self.limit


@pytest.mark.parametrize(("room", "again"), [(0.9, "abcabc"), (1.1, "abc"), (2.1, "abc")])
def test_on_the_host_itself_what_is_in_use_takes_no_room_twice(
    room: float, again: str, networks: Networks
) -> None:
    runner = Runner(read := Reading(networks), HOST, memory=Small(room * sum(sizes(networks))))
    for weights in (A, B, C, A, B, C):
        runner.run([Open(weights)])
    assert "".join(read.asked) == again


def test_what_the_host_keeps_goes_when_the_host_is_out_of_memory(networks: Networks) -> None:
    runner = Runner(read := Reading(networks), HOST, memory=Small(10 * sum(sizes(networks))))
    for weights in (A, B, C):
        runner.run([Open(weights)])
    assert A in runner._checkpoints._host
    assert runner._checkpoints.let_idle_go() and not runner._checkpoints.let_idle_go()
    runner.run([Open(A)])
    assert "".join(read.asked) == "abca"


def test_networks_that_could_not_be_placed_are_read_again(networks: Networks) -> None:
    """They may have been moved in part."""
    memory = Scarce(1000)
    memory.host_limit = 10 * sum(sizes(networks))
    runner = Runner(read := Reading(networks), HOST, memory=memory)
    for _ in range(2):
        [error] = runner.run([Open(A)])
        assert isinstance(error, CellFailed) and A not in runner._checkpoints._host
    memory.limit = 10 * sum(sizes(networks))
    runner.run([Open(A)])
    assert len(read.asked) == 5  # twice at each failure, the second time with nothing beside it


def test_networks_that_do_not_lie_whole_on_the_device_are_not_kept_twice(networks: Networks) -> None:
    unet, text, vae = sizes(networks)
    memory = Scarce(unet + int(1.02 * max(text, vae)))
    memory.host_limit = 10 * (unet + text + vae)
    checkpoints = Runner(Reading(networks), HOST, memory=memory)._checkpoints
    checkpoints.of(A)
    assert A not in checkpoints._host
    memory.limit = 8 * (unet + text + vae)
    checkpoints.of(B)
    assert B in checkpoints._host and checkpoints.lower(B) and B not in checkpoints._host


def made(networks: Networks, memory: Memory | None = None, broken: str = "") -> tuple[Host, Reading]:
    read = Reading(networks, broken)
    return Host(read, memory or Small(10 * sum(sizes(networks)))), read


def test_one_alone_is_read_ahead_and_waited_for_when_it_is_asked(networks: Networks) -> None:
    host, read = made(networks)
    assert not host.read_ahead(B) and read.asked == []  # the first comes first
    host.take(A)
    read.may_go_on.clear()
    assert not host.read_ahead(B) and not host.read_ahead(B) and not host.read_ahead(C)
    read.may_go_on.set()
    ends(host)
    assert host.read_ahead(B) and not host.read_ahead(C)
    assert host.take(B) is not None and read.asked == ["a", "b"] and host.read_ahead(B)
    assert [read.threads[name].startswith("read-ahead") for name in "ab"] == [False, True]
    assert not host.read_ahead(C)
    ends(host)
    assert read.asked == ["a", "b", "c"]
    host.close()


def test_the_longest_unused_goes_first(networks: Networks) -> None:
    host, _ = made(networks, Small(2.1 * sum(sizes(networks))))
    for weights in (A, B, A, C):
        host.take(weights)
        host.leave(weights)
    assert A in host and C in host and B not in host


def test_what_fails_ahead_fails_when_it_is_asked(networks: Networks) -> None:
    host, read = made(networks, broken="b")
    host.take(A)
    host.read_ahead(B)
    ends(host)
    assert host.read_ahead(B)
    for times in (2, 3):  # and is tried anew by whoever asks again
        with pytest.raises(CellFailed, match="b is broken"):
            host.take(B)
        assert len(read.asked) == times
    assert B not in host
    host.close()


def test_another_is_not_read_beside_the_one_that_is_read_ahead(networks: Networks) -> None:
    host, read = made(networks)
    host.take(A)
    host.read_ahead(B)
    host.take(C)
    assert host._ahead is not None and host._ahead[1].done() and read.asked == ["a", "b", "c"]
    host.take(B)
    assert read.asked == ["a", "b", "c"]
    host.close()


def test_what_nobody_asks_for_any_more_makes_way(networks: Networks) -> None:
    host, read = made(networks)
    host.take(A)
    for forget in (lambda: host.done_with(B), host.let_go):
        host.read_ahead(B)
        ends(host)
        forget()
        assert host._ahead is None
    assert read.asked == ["a", "b", "b"]
    host.close()


def test_nothing_is_read_ahead_where_room_is_short(networks: Networks) -> None:
    host, read = made(networks, Small(0.9 * sum(sizes(networks))))
    host.take(A)
    assert host.read_ahead(B) and read.asked == ["a"]
    host.close()


def files(folder: Path, names: str) -> dict[str, Path]:
    for name in names:
        (folder / name).touch()
    return {name: folder / name for name in names}


def played(networks: Networks, monkeypatch: pytest.MonkeyPatch, broken: str = "") -> Reading:
    read = Reading(networks, broken)
    monkeypatch.setattr("farm.render.renderer.load_checkpoint", read)
    return read


def test_the_next_checkpoint_is_read_while_cells_of_the_one_before_render(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first cells are done although the second checkpoint cannot be read yet."""
    read = played(networks, monkeypatch)
    renderer = Renderer(files(tmp_path, "ab"), "cpu", rows=8)
    for cell in cells_of(["a", "a", "b", "b"]):
        renderer.submit(cell)
    renderer.step()  # opens the first
    read.may_go_on.clear()
    read.begun.clear()
    done = []
    while len(done) < 2:
        done += renderer.step()
    assert read.begun.is_set() and read.asked == ["a", "b"]
    assert [one.cell.settings.model for one in done] == ["a", "a"]
    read.may_go_on.set()
    while not renderer.idle:
        done += renderer.step()
    assert len(done) == 4 and not any(one.error for one in done)
    work = renderer.take_work()
    assert work.of("load").calls == 2 and read.asked == ["a", "b"]
    assert read.threads["b"].startswith("read-ahead")
    renderer.close()


def cells_of(models: list[str]) -> list[Cell]:
    return [Cell(number, (), changed(model=model, seed=number)) for number, model in enumerate(models)]


def test_one_that_cannot_be_read_ahead_fails_its_own_cells(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(networks, monkeypatch, broken="b")
    renderer = Renderer(files(tmp_path, "abc"), "cpu", rows=8)
    done = finish(renderer, [changed(model=model, seed=seed) for model in "abc" for seed in (1, 2)])
    errors = {(one.cell.settings.model, one.error) for one in done}
    assert len(done) == 6 and errors == {("a", ""), ("b", "b is broken"), ("c", "")}
    renderer.close()


@pytest.mark.parametrize("order", ["aabbcc", "abcabcabc", "abacabacbc"])
def test_no_checkpoint_is_read_twice(
    order: str, tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order cells ask for them; two are on the device at once."""
    read = played(networks, monkeypatch)
    renderer = Renderer(files(tmp_path, "abc"), "cpu", rows=8)
    done = finish(renderer, [changed(model=model, seed=seed) for seed, model in enumerate(order)])
    assert len(done) == len(order) and not any(one.error for one in done)
    assert read.asked == ["a", "b", "c"] and renderer.take_work().of("load").calls == 3
    renderer.close()


def test_folders_are_not_read_ahead(
    tiny_model: Path, tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While libraries load them, PyTorch is another one for all threads."""
    read = played(networks, monkeypatch)
    (tmp_path / "b").mkdir()
    renderer = Renderer({"a": tmp_path, "b": tmp_path / "b"}, "cpu", rows=8)
    finish(renderer, [changed(model=model) for model in "ab"])
    assert not any(name.startswith("read-ahead") for name in read.threads.values())
    renderer.close()


def test_parameters_are_the_same_in_memory_that_is_locked(networks: Networks) -> None:
    unet = copy.deepcopy(networks.unet).to(memory_format=torch.channels_last)
    before = [(one.clone(), one.stride()) for one in unet.parameters()]
    monitored = Scarce(0)
    page_lock(unet.parameters(), monitored)
    assert all(
        torch.equal(one, value) and one.stride() == stride
        for one, (value, stride) in zip(unet.parameters(), before)
    )
    assert len(monitored.at_home) == -(-bytes_of(unet.parameters()) // PIECE)
    read_through(unet.parameters())


def test_half_of_the_hosts_memory_stays_free_and_no_process_keeps_more_than_a_quarter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo, memory = tmp_path / "meminfo", Memory(HOST)
    monkeypatch.setattr(memory_module, "CONTAINERS", ())
    monkeypatch.setattr(memory_module, "MEMINFO", meminfo)
    assert not memory.can_keep(0, 1)  # nobody tells
    meminfo.write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 700 kB\nHugePages_Total: 0\n")
    kb = 1024
    assert memory.can_keep(0, 200 * kb) and not memory.can_keep(0, 201 * kb)
    assert memory.can_keep(150 * kb, 100 * kb) and not memory.can_keep(151 * kb, 100 * kb)
    limit, used, stat = (tmp_path / name for name in ("limit", "used", "stat"))
    monkeypatch.setattr(memory_module, "CONTAINERS", ((limit, used, stat, "inactive_file"),))
    assert memory.can_keep(0, 200 * kb)  # there is no container
    used.write_text(f"{400 * kb}\n")
    stat.write_text(f"anon 5\ninactive_file {100 * kb}\n")
    limit.write_text("max\n")
    assert memory.can_keep(0, 200 * kb)
    limit.write_text(f"{800 * kb}\n")
    assert memory.can_keep(0, 100 * kb) and not memory.can_keep(0, 101 * kb)
