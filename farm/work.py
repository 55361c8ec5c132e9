"""What was done, and how long it took: counted where it is rendered, added up by whoever tells it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple


class Size(NamedTuple):
    """Pictures whose rows and decoding take about as long.

    Attributes:
        model: the checkpoint's name.
        precision: as asked.
        width: in pixels.
        height: in pixels.
    """

    model: str
    precision: str
    width: int
    height: int


class Networks(NamedTuple):
    """Networks that take about as long to load, and to encode a text.

    Attributes:
        model: the checkpoint's name.
        precision: as asked.
    """

    model: str
    precision: str


class Need(NamedTuple):
    """What is to be done for pictures of a size.

    Attributes:
        rows: through the UNet; shallow ones count as the part that their work is.
        pictures: to be decoded.
        encodings: of pictures to start from.
    """

    rows: float
    pictures: int
    encodings: int = 0


@dataclass(frozen=True, slots=True)
class Needs:
    """What is to be done for a job.

    Attributes:
        sizes: rows and pictures of each.
        loads: of networks, with one worker.
        texts: to be encoded by them.
    """

    sizes: Mapping[Size, Need]
    loads: Mapping[Networks, int] = field(default_factory=dict)
    texts: Mapping[Networks, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """Work that takes about as long each time.

    Attributes:
        request: `open`, `encode text`, `encode image`, `predict`, `decode` or `fetch`; or `load` (from a
            file), `bring back` (from the host's memory) or `compile`, which are done for these.
        model: the checkpoint's name.
        precision: as asked.
        width: of the picture, in pixels; 0 where it does not matter.
        height: as the width.
        tokens: of the conditioning; 0 where it does not matter.
        approximation: what is computed otherwise; empty if nothing is.
        weight: of a row, in whole ones, as plans weigh it.
    """

    request: str
    model: str = ""
    precision: str = ""
    width: int = 0
    height: int = 0
    tokens: int = 0
    approximation: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Tally:
    """How often.

    Attributes:
        calls: of the network.
        rows: that were answered.
        possible: rows that would have fitted into the calls.
        seconds: of the device.
    """

    calls: int = 0
    rows: int = 0
    possible: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Tally)))


@dataclass(frozen=True, slots=True)
class Work:
    """What a device did.

    Attributes:
        tallies: by kind.
        shared_rows: rows of the UNet that needed no computing, since another cell had the same.
        waiting: seconds in which the device had nothing to do, because noise was still being drawn.
        between: seconds that the samplers, guidance and the loop itself took; below 0 where a card worked on
            while its host did something else.
        again: cells that were begun again, for want of memory or at a higher precision.
        notes: what people should know of how it was done, each in a line.
        files: of a profile, by their names.
        device: the name of what did it, as far as that matters to how long it takes; of several, the last.
    """

    tallies: Mapping[Kind, Tally] = field(default_factory=dict)
    shared_rows: int = 0
    waiting: float = 0.0
    between: float = 0.0
    again: int = 0
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    device: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.tallies or self.notes or self.files)

    def __add__(self, other: "Work") -> "Work":
        kinds = dict.fromkeys((*self.tallies, *other.tallies))
        nothing = Tally()
        return Work(
            {kind: self.tallies.get(kind, nothing) + other.tallies.get(kind, nothing) for kind in kinds},
            self.shared_rows + other.shared_rows,
            self.waiting + other.waiting,
            self.between + other.between,
            self.again + other.again,
            (*self.notes, *other.notes),
            {**self.files, **other.files},
            other.device or self.device,
        )

    def of(self, request: str) -> Tally:
        """All that was done of one kind of request."""
        return sum((tally for kind, tally in self.tallies.items() if kind.request == request), Tally())

    @property
    def occupancy(self) -> float:
        """Rows of the UNet, of those that would have fitted into its calls; 1 if there were none."""
        tally = self.of("predict")
        return tally.rows / tally.possible if tally.possible else 1.0


def total(works: Iterable[Work]) -> Work:
    """The sum of what several did."""
    return sum(works, Work())
