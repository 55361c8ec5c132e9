"""A look at where the time goes: PyTorch's profiler over some batches in the middle of a run."""

import gzip
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from farm.render.engine import Runner
from farm.render.requests import Request

SKIPPED = 20
"""Batches before the look: loading, and the first calls of each shape, are another matter."""

LOOKED_AT = 40
"""Batches that are recorded; each is a few thousand events."""

OPERATORS = 40
"""Rows of the table."""


class Profile:
    """Counts batches, records some, and then has the files of it. Belongs to the engine's thread."""

    def __init__(self) -> None:
        self._batches = 0
        self._has_begun = False
        self._profiler: profile | None = None
        self._files: dict[str, bytes] = {}

    def watched(self, runner: Runner) -> Runner:
        """The runner, whose batches are counted and have names in the trace."""
        return _Watched(runner, self)

    @contextmanager
    def batch(self, requests: list[Request]) -> Iterator[None]:
        """Around a batch, which gets a name in ASCII: others are "unknown" in the trace."""
        self._batches += 1
        with record_function(f"{requests[0].kind.request}, {len(requests)} rows"):
            yield

    def turn(self) -> None:
        """Begins or ends to record, if it is time; between batches, so that no batch takes the blame."""
        if self._profiler is not None and self._batches >= SKIPPED + LOOKED_AT:
            self.end()
        elif self._batches >= SKIPPED and not self._has_begun:
            self._has_begun = True
            self._profiler = profile(activities=_activities())
            self._profiler.start()

    def end(self) -> None:
        """Nothing more is to come; what was recorded so far counts."""
        if self._profiler is not None:
            self._profiler.stop()
            self._files = _files(self._profiler)
            self._profiler = None

    def take_files(self) -> Mapping[str, bytes]:
        """The Chrome trace and the table, by their names; once."""
        files, self._files = self._files, {}
        return files


class _Watched:
    def __init__(self, runner: Runner, seen: Profile) -> None:
        self._runner = runner
        self._seen = seen

    def run(self, requests: list[Request]) -> list[Any]:
        with self._seen.batch(requests):
            return self._runner.run(requests)


def begin_here() -> None:
    """Starts PyTorch's profiler up in the thread that imported torch; elsewhere it would complain."""
    with profile(activities=_activities()):
        pass


def _activities() -> list[ProfilerActivity]:
    cards = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *cards]


def _files(profiler: profile) -> dict[str, bytes]:
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=by, row_limit=OPERATORS, max_name_column_width=60)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        return {"trace.json.gz": gzip.compress(trace.read_bytes()), "operators.txt": table.encode()}
