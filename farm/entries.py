"""Entries of a job as lists, and axes with the place that they stand at."""

from collections.abc import Iterable
from dataclasses import dataclass

from farm.axes import Axis, AxisValue
from farm.document import Items, Place, Text, Written
from farm.kinds import Reading
from farm.settings import quotes_hint


@dataclass(frozen=True, slots=True)
class Swept:
    """An axis, and where it stands in the job."""

    place: Place
    axis: Axis


def axis_at(place: Place, name: str, values: Iterable[AxisValue] = ()) -> list[Swept]:
    """One axis, as a list; without values where nothing in it is right."""
    return [Swept(place, Axis(name, tuple(values)))]


def texts_in(name: str, written: Written, reading: Reading) -> list[Text]:
    """The texts among a list's entries; anything else is a mistake."""
    entries = entries_in(name, written, reading)
    for entry in entries:
        if not isinstance(entry, Text):
            what = f"{name}: only plain values are allowed here{quotes_hint(name, entry)}"
            reading.mistakes.add(entry.place, what)
    return [entry for entry in entries if isinstance(entry, Text)]


def listed(written: Written) -> list[Written]:
    """A list's entries, or a lone value as the only one."""
    return list(written) if isinstance(written, Items) else [written]


def entries_in(name: str, written: Written, reading: Reading) -> list[Written]:
    """As `listed`, without lists among them; these, and a list without entries, are mistakes."""
    entries = listed(written)
    if not entries:
        reading.mistakes.add(written.place, f"{name}: the list is empty")
    for entry in entries:
        if isinstance(entry, Items):
            what = f"{name}: a list inside a list is not allowed{quotes_hint(name, entry)}"
            reading.mistakes.add(entry.place, what)
    return [entry for entry in entries if not isinstance(entry, Items)]
