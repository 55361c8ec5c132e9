"""Workers as the coordinator sees them: started, called, answering later, or dead."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from farm.cell import Cell
from farm.cluster.worker import Report


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call, or the end of the worker that was called.

    Attributes:
        worker: who.
        report: its answer; None if it is dead.
        death: how it died.
    """

    worker: str
    report: Report | None
    death: str = ""


class Crew(Protocol):
    """Workers by name: each is started, called, and killed; calls are answered later, one at a time."""

    @property
    def names(self) -> Sequence[str]:
        """Every worker's name, started or not."""

    def is_running(self, name: str) -> bool:
        """Whether the worker was started and not killed since."""

    def is_called(self, name: str) -> bool:
        """Whether an answer of the worker is still to come."""

    def start(self, name: str) -> None:
        """Starts a worker, or begins to; its first answer tells that it is there."""

    def call(self, name: str, cells: Sequence[Cell], more: bool) -> None:
        """Calls `Worker.exchange`."""

    def wait(self, timeout: float) -> Iterable[Reply]:
        """Answers that have come, after at most `timeout` seconds; a worker's death is one."""

    def kill(self, name: str) -> None:
        """Ends a worker and forgets its call; harmless if it is gone."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds without progress after which a worker is taken for hanging and replaced.

    Attributes:
        starting: until a worker answers for the first time.
        loading: for the first batch with other weights.
        stepping: for any other batch, or for a picture's plugins.
        deserted: with no worker at all, until the run ends with an error.
    """

    starting: float = 300.0
    loading: float = 900.0
    stepping: float = 600.0
    deserted: float = 300.0


USUAL = Patience()
COMPILING = Patience(stepping=3600.0)
"""Where batches may be compiled first: of a large network on one core that takes long."""

ENDLESS = Patience(math.inf, math.inf, math.inf, math.inf)
