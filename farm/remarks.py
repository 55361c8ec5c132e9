"""What there is to say about the combinations of a job: contradictions, and settings that do not matter."""

from collections.abc import Iterable, Mapping
from typing import Any

from farm.cell import DEFAULTS, SettingValue
from farm.document import Mistakes
from farm.errors import quoted
from farm.job import Job
from farm.resolving import Ignored, contradictions
from farm.settings import INIT_IMAGE

MOST_ALIKE = 10
"""Contradictions of a setting that are told one by one."""


class Remarks:
    """Collects them while a job is multiplied out.

    Args:
        job: the job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._mistakes: dict[str, dict[str, None]] = {}
        self._odd = Mistakes()
        self._vain = set(range(len(job.skips)))
        self._idle: dict[str, dict[str, None]] = {}

    def contradicted(self, asked: Mapping[str, Any]) -> bool:
        """Whether a combination contradicts itself; what is wrong is noted.

        Args:
            asked: as `farm.resolving.completed` gives it.
        """
        found = list(contradictions(asked, self._job.samplers))
        for name, what in found:
            self._mistakes.setdefault(name, {})[what] = None
        return bool(found)

    def wrong(self, faults: Iterable[tuple[str, str]]) -> None:
        """Note what is wrong with settings in a combination: pairs of a setting and words."""
        for name, what in faults:
            self._mistakes.setdefault(name, {})[what] = None

    def skipped(self, asked: Mapping[str, SettingValue], titles: Mapping[str, str]) -> bool:
        """Whether a rule of the job drops a combination; the arguments are those of `Condition.holds`."""
        found = False
        for index, rule in enumerate(self._job.skips):
            if (not found or index in self._vain) and rule.drops(asked, titles):
                self._vain.discard(index)
                found = True
        return found

    def lacking(self, parts: Mapping[str, str]) -> None:
        """Note parts that were to be put in order, each with a prompt that it is not in."""
        place = self._job.places.get("order") or self._job.places["prompt"]
        for part, text in parts.items():
            what = f"order: {part!r} is not in {quoted(text)}, where nothing is put for it"
            self._odd.warn(place, f"{what}: orders that differ in nothing else are the same picture")

    def ignored(self, asked: Mapping[str, Any], ignored: Iterable[Ignored]) -> None:
        """Note what was asked for in a combination although it does not matter there."""
        for name, where in ignored:
            if name == "steps" and "evaluations" in self._job.places:
                name = "evaluations"
            elif name not in self._job.places or (name != "steps" and asked[name] == DEFAULTS[name]):
                continue
            self._idle.setdefault(name, {})[where] = None

    def raise_any(self) -> None:
        """Raise the contradictions, each once, at the place of a setting that has part in it.

        Raises:
            BadInput: if there is any.
        """
        mistakes = Mistakes()
        for name, texts in self._mistakes.items():
            told = [f"{name}: {text}" for text in texts]
            if len(told) > MOST_ALIKE:
                told[MOST_ALIKE:] = [f"{name}: and {len(told) - MOST_ALIKE} more like these"]
            for text in told:
                mistakes.add(self._job.places.get(name) or self._job.places["prompt"], text)
        mistakes.raise_any()

    def warnings(self) -> tuple[str, ...]:
        """One line for each rule that drops nothing, and for what else looks like a mistake."""
        for index in self._vain:
            self._odd.warn(self._job.skips[index].place, "skip: this rule drops no combination")
        return self._odd.warnings()

    def notes(self) -> tuple[str, ...]:
        """One line for each setting that does not matter to some of the cells."""
        return tuple(self._note(name, wheres) for name, wheres in self._idle.items())

    def _note(self, name: str, wheres: Iterable[str]) -> str:
        if name not in ("steps", "evaluations"):
            return f"{name}: no effect {_together(wheres)}"
        rows = [self._job.samplers[where.removeprefix("on ")] for where in wheres]
        costs = _listed(dict.fromkeys(str(row.evaluations(1)) for row in rows))
        own = (
            f"{_listed(row.name for row in rows)} chooses its own steps, about {costs} evaluations a picture"
        )
        has_pictures = name == "steps" and INIT_IMAGE in self._job.places
        noise = " where there is no init_image" if has_pictures else ""
        return f"{own}: `{name}` does not matter to it{noise}"


def _together(wheres: Iterable[str]) -> str:
    """`on Euler, LMS`, and not `on Euler, on LMS`."""
    grouped: dict[str, list[str]] = {}
    for where in wheres:
        kind = next((kind for kind in _KINDS if where.startswith(kind)), "")
        grouped.setdefault(kind, []).append(where.removeprefix(kind))
    return "; ".join(kind + _listed(ends) for kind, ends in grouped.items())


_KINDS = ("on ", "with the schedule ")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
