import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from farm.cell import Outcome
from farm.cluster.coordinator import Notice
from farm.cluster.crew import Patience
from farm.cluster.inline import InlineFarm
from farm.cluster.kinds import kind_of_workers
from farm.cluster.ray_farm import RayFarm
from farm.errors import FarmError
from tests.cluster.painter import MODEL, Painter, begun, cells

PAINTER = "tests.cluster.painter:Painter"
GIB = 2**30


@pytest.mark.parametrize(
    ("resources", "workers", "weight", "number", "device", "options"),
    [
        ({"GPU": 2.0, "CPU": 16.0}, None, 0, 2, "cuda", {"num_cpus": 0, "num_gpus": 1}),
        ({"GPU": 2.0, "CPU": 16.0}, 3, 0, 3, "cuda", {"num_cpus": 0, "num_gpus": 0.5}),
        ({"GPU": 2.0, "CPU": 16.0}, 1, 0, 1, "cuda", {"num_cpus": 0, "num_gpus": 1}),
        ({"CPU": 4.0, "memory": 64.0 * GIB}, None, GIB, 4, "cpu", {"num_cpus": 1}),
        ({"CPU": 16.0, "memory": 10.0 * GIB}, None, 2 * GIB, 2, "cpu", {"num_cpus": 1}),
        ({"CPU": 16.0, "memory": 1.0 * GIB}, None, 2 * GIB, 1, "cpu", {"num_cpus": 1}),
        ({"CPU": 4.0}, None, GIB, 4, "cpu", {"num_cpus": 1}),
        ({"CPU": 2.0, "memory": 64.0 * GIB}, 4, GIB, 4, "cpu", {"num_cpus": 0.5}),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="there one worker fills the GPU that Ray cannot see")
def test_workers_are_what_the_machine_has_room_for(resources, workers, weight, number, device, options):
    kind = kind_of_workers(resources, workers, weight)
    assert (len(set(kind.names)), kind.device) == (number, device)
    assert {name: kind.options.get(name) for name in options} == options


def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path):
    with (
        pytest.raises(FarmError, match=r"^cannot join the Ray cluster at 127\.0\.0\.1:9: "),
        RayFarm({MODEL: tmp_path}, (), address="127.0.0.1:9"),
    ):
        pass
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("painted")


@pytest.fixture(scope="module")
def running_ray():
    """A local Ray with room for workers beside those of the farm below."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def open_farm(folder, running_ray):
    patience = Patience(starting=120, loading=60, stepping=4)
    with RayFarm({MODEL: folder}, (), workers=2, patience=patience, renderer=PAINTER) as farm:
        yield farm


@pytest.fixture
def farm(open_farm, folder):
    """A farm of two painters that lives as long as this module, with nothing begun."""
    for path in folder.iterdir():
        path.unlink()
    return open_farm


def painters(folder: Path) -> set[int]:
    """Process ids of the workers that have begun something."""
    return {int(path.name.split("-")[0]) for path in folder.glob("*.txt")}


def split(events):
    events = list(events)
    return (
        {event.cell.number: event for event in events if isinstance(event, Outcome)},
        [event for event in events if isinstance(event, Notice)],
        sum(isinstance(event, Outcome) for event in events),
    )


@pytest.mark.slow
def test_ray_gives_what_inline_gives(farm, tmp_path):
    wanted = cells(["cat", "bad", "dog"] * 20)
    outcomes, notices, count = split(farm.render(wanted))
    with InlineFarm({MODEL: tmp_path}, (), "cpu", Painter) as inline:
        expected, _, _ = split(inline.render(wanted))
    assert (count, notices) == (60, [])
    for number, outcome in expected.items():
        same = outcomes[number]
        assert (same.cell, same.status, same.png, same.error) == (
            outcome.cell, outcome.status, outcome.png, outcome.error,
        )  # fmt: skip
    assert {outcome.worker for outcome in outcomes.values()} == {"cpu-0", "cpu-1"}


@pytest.mark.slow
def test_a_killed_worker_costs_what_it_had_in_flight(farm, folder):
    events = farm.render(cells(["cat"] * 80, steps=10))
    first = [next(events) for _ in range(20)]
    psutil.Process(painters(folder).pop()).kill()
    outcomes, notices, count = split((*first, *events))
    assert (len(outcomes), count) == (80, 80)
    assert all(outcome.status == "done" for outcome in outcomes.values())
    (notice,) = notices
    assert len(begun(folder)) - 80 <= notice.put_back <= 2 * Painter.batch


@pytest.mark.slow
def test_a_cell_that_kills_its_workers_fails_alone(farm, folder):
    wanted = cells(["cat"] * 5 + ["poison"] + ["cat"] * 24)
    outcomes, notices, count = split(farm.render(wanted))
    assert (len(outcomes), count) == (30, 30)
    assert [number for number, outcome in outcomes.items() if outcome.status == "failed"] == [6]
    assert outcomes[6].error.startswith(
        "the worker died 3 times while rendering this cell alone; the last time: its"
    )
    assert begun(folder).count(6) == len(notices)
    assert len(begun(folder)) <= 30 + sum(notice.put_back for notice in notices)


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(farm, folder):
    outcomes, notices, _ = split(farm.render(cells(["cat"] * 6 + ["hang once"] + ["cat"] * 6)))
    assert [outcome.status for outcome in outcomes.values()] == ["done"] * 13
    assert [notice.text.partition(";")[0] for notice in notices] == [
        "no sign of life for 4 s while rendering"
    ]


@pytest.mark.slow
def test_closing_the_generator_leaves_no_worker_and_a_usable_farm(farm, folder):
    events = farm.render(cells(["cat"] * 200, steps=10))
    for _ in range(12):
        next(events)
    busy = [psutil.Process(pid) for pid in painters(folder)]
    events.close()
    assert busy
    psutil.wait_procs(busy, timeout=20)
    assert not [process for process in busy if process.is_running()]
    events = list(farm.render(cells(["cat"] * 4)))
    assert sum(isinstance(event, Outcome) for event in events) == 4


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_run_with_the_reason(running_ray, tmp_path):
    with (
        RayFarm({MODEL: tmp_path}, (), workers=1, renderer="tests.cluster.nowhere:Painter") as farm,
        pytest.raises(FarmError, match=r"again and again.*it could not start: .*nowhere"),
    ):
        list(farm.render(cells(["cat"])))


INTERRUPTED = """
import signal, sys
from pathlib import Path
import psutil
from farm.cluster.ray_farm import RayFarm
from tests.cluster.painter import MODEL, cells

with RayFarm({MODEL: Path(sys.argv[1])}, (), workers=1, renderer="tests.cluster.painter:Painter") as farm:
    for number, event in enumerate(farm.render(cells(["cat"] * 1000, steps=10))):
        if number == 5:
            print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
            print("torch" in sys.modules, flush=True)
            signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.slow
def test_an_interrupt_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    pids, torch_loaded = run.stdout.splitlines()
    assert "KeyboardInterrupt" in run.stderr
    assert run.returncode == -signal.SIGINT if os.name == "posix" else run.returncode
    assert len(pids.split()) > 2  # a local Ray is several processes
    deadline = time.monotonic() + 20
    while alive := [pid for pid in pids.split() if psutil.pid_exists(int(pid))]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.2)
    assert torch_loaded == "False"  # whoever leads the workers has no use for it
