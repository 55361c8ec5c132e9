import contextlib
import os
import socket
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="a cluster of one's own needs Linux or macOS"),
]


@pytest.fixture
def cluster(workspace):
    """The address of a Ray cluster that somebody else started, as `ray start` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        os.path.join(os.path.dirname(sys.executable), "ray"), "start", "--head", "--block", f"--port={port}",
        "--num-cpus=2", "--object-store-memory=100000000", "--include-dashboard=false",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    while not _listens(port):
        assert process.poll() is None and time.monotonic() - started < 60
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def _listens(port):
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


def test_a_running_cluster_is_joined_and_left_alone(start_farm, workspace, cluster):
    process = start_farm("run", "small.yaml", "--address", cluster)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    table = pd.read_csv(workspace / "results" / "small" / "index.csv")
    assert list(table.status) == ["done"] * 4
    assert _listens(int(cluster.partition(":")[2]))
