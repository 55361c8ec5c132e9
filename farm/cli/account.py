"""What a run did, held against what was planned."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from farm.cli.words import counted
from farm.cluster.coordinator import Done, Event, Notice
from farm.plan import Plan
from farm.work import Kind, Work, total

PARTS = {
    "predict": "UNet",
    "decode": "VAE",
    "encode image": "VAE encoder",
    "encode text": "text",
    "load": "loading",
    "load vae": "loading",
    "load lora": "loading",
    "load hypernetwork": "loading",
    "bring back": "loading",
    "compile": "compiling",
}
"""What the requests are called where time is told."""

LOADS = {
    "load": "checkpoint", "load vae": "VAE", "load lora": "LoRA", "load hypernetwork": "hypernetwork"
}  # fmt: skip
"""What is loaded by them."""


@dataclass(slots=True)
class Account:
    """Of one job.

    Attributes:
        follows: whether another job of the command was rendered before, whose rows are still known.
        works: of each worker.
        evaluations: of the pictures that are done, by key: cells that want the same picture have one.
        failed: cells that are not done.
        put_back: cells that were given to another worker.
    """

    follows: bool = False
    works: dict[str, Work] = field(default_factory=dict)
    evaluations: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    put_back: int = 0

    def add(self, event: Event) -> None:
        """Takes in what a farm says."""
        if isinstance(event, Notice):
            self.put_back += event.put_back
        elif isinstance(event, Done):
            self.works[event.worker] = self.works.get(event.worker, Work()) + event.work
        elif event.status == "done":
            self.evaluations[event.cell.key] = event.cell.evaluations
        else:
            self.failed += 1

    @property
    def work(self) -> Work:
        """Of all workers together."""
        return total(self.works.values())

    def lines(self, planned: Plan) -> Iterator[str]:
        """What there is to tell, for people.

        Args:
            planned: what was to be rendered.
        """
        work = self.work
        if not work:
            return
        done, shared = work.of("predict").rows, f"{work.shared_rows:,} more were shared"
        evaluations = sum(self.evaluations.values())
        yield f"{evaluations:,} evaluations of what is done, {done:,} rows through the UNet; {shared}"
        if reason := self._difference(planned, done):
            yield reason
        loads = {called: work.of(request).calls for request, called in LOADS.items()}
        loaded = ", ".join(
            counted(calls, f"{called} load")
            for called, calls in loads.items()
            if calls or called == "checkpoint"
        )
        if back := work.of("bring back").calls:
            loaded += f", {back} brought back from the host's memory"
        yield f"batches {work.occupancy:.0%} full, {loaded}; {_shares(work)}"

    def files(self) -> Iterator[tuple[str, str, bytes]]:
        """Of a profile: worker, name, content."""
        for worker, work in self.works.items():
            yield from ((worker, name, content) for name, content in work.files.items())

    def table(self) -> str:
        """Where the workers' time went, by what was asked of the networks."""
        work = self.work
        whole = sum(seconds for _, seconds in _parts(work)) or 1.0
        lines = [f"{'':40}{'calls':>8}{'rows':>10}{'full':>6}{'rows/s':>9}{'seconds':>9}{'':>6}"]
        told = {kind: tally for kind, tally in work.tallies.items() if kind.request in PARTS}
        for kind, tally in sorted(told.items(), key=lambda pair: -pair[1].seconds):
            full = f"{tally.rows / tally.possible:.0%}" if tally.possible else ""
            rows = f"{tally.rows:,}" if tally.rows else ""
            rate = f"{tally.rows / tally.seconds:.1f}" if tally.rows and tally.seconds else ""
            numbers = f"{tally.calls:>8,}{rows:>10}{full:>6}{rate:>9}{tally.seconds:>9.2f}"
            lines.append(f"{_titled(kind):40}{numbers}{tally.seconds / whole:>6.0%}")
        for title, seconds in (
            ("waiting for noise", work.waiting),
            ("samplers and the loop", max(0.0, work.between)),
        ):
            lines.append(f"{title:73}{seconds:>9.2f}{seconds / whole:>6.0%}")
        return "\n".join(lines)

    def _difference(self, planned: Plan, done: int) -> str:
        """How far it is from the plan, and what that comes from as far as it is known."""
        difference = done - planned.rows()
        if not difference:
            return ""
        reasons = []
        if any(planned.samplers[cell.settings.sampler].chooses_steps for cell in planned.cells):
            reasons.append("a sampler chooses its own steps")
        if planned.leaves_rows_out():
            reasons.append("rows are left out below negative_guidance_minimum_sigma")
        if self.follows and difference < 0:
            reasons.append("rows of the job before were still known")
        if self.put_back:
            reasons.append(f"{self.put_back} went to another worker")
        if self.failed:
            reasons.append(f"{self.failed} failed")
        if again := self.work.again:
            reasons.append(f"{again} begun again")
        if len(self.works) > 1:
            reasons.append(f"{len(self.works)} workers share no rows with each other")
        told = f": {'; '.join(reasons)}" if reasons else ""
        rows = f"{abs(difference):,} row{'s' * (abs(difference) > 1)}"
        return f"that is {rows} {'more' if difference > 0 else 'fewer'} than planned{told}"


def _titled(kind: Kind) -> str:
    """A kind of work, for people."""
    size = f" {kind.width}×{kind.height}" if kind.width else ""
    tokens = f", {kind.tokens} tokens" if kind.tokens else ""
    how = f", {kind.approximation}" if kind.approximation else ""
    return f"{PARTS[kind.request]} {kind.model}{size}{tokens}{how}"


def _parts(work: Work) -> list[tuple[str, float]]:
    networks: dict[str, float] = {}
    for request, title in PARTS.items():
        networks[title] = networks.get(title, 0.0) + work.of(request).seconds
    return [*networks.items(), ("waiting for noise", work.waiting), ("the rest", max(0.0, work.between))]


def _shares(work: Work) -> str:
    """Where the workers' time went."""
    parts = _parts(work)
    whole = sum(seconds for _, seconds in parts) or 1.0
    told = [f"{title} {seconds / whole:.0%}" for title, seconds in parts if seconds / whole >= 0.005]
    return f"{whole:.1f} s of work: {', '.join(told)}"
