"""What was measured, as plain data; and the ratios and aims in it, as lines to read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.sheet.side import Side

FARM, COMPILED_FARM = "farm", "farm_compiled"
WORKERS, COMPILED_WORKERS = "farm_workers", "farm_workers_compiled"
PER_CELL, COMPILED, SEEDS = "diffusers_per_cell", "diffusers_per_cell_compiled", "diffusers_seeds_batched"

UTILISATION = "model_flops_utilisation"

Sides = Mapping[str, Side]


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure that is wanted.

    Attributes:
        what: is measured.
        size: of the networks that it is about.
        device: `cpu` or `cuda`.
        least: that is wanted.
        over: the side that it is a multiple of; empty if the figure is the use of the chip.
        of: the sides of which one is to reach it.
    """

    what: str
    size: str
    device: str
    least: float
    over: str = ""
    of: tuple[str, ...] = (FARM, COMPILED_FARM)

    def measured(self, figures: Mapping[str, Any]) -> float | None:
        """What of it was measured, on the best of its sides; None if it was not."""
        sides = [figures[name] for name in self.of if name in figures]
        found = [
            side["times_faster_than"].get(self.over) if self.over else side[UTILISATION] for side in sides
        ]
        return max((each for each in found if each is not None), default=None)


AIMS = (
    Aim("tiny-cats on a CPU, one worker, over a call per cell", "tiny-cats", "cpu", 4, PER_CELL),
    Aim(
        "tiny-cats on a CPU, two workers, over a call per cell",
        "tiny-cats",
        "cpu",
        6,
        PER_CELL,
        (WORKERS, COMPILED_WORKERS),
    ),
    Aim("SD 1.5 at 512², of the chip", "sd15", "cuda", 0.4),
    Aim("SD 1.5 at 512², over a call per cell", "sd15", "cuda", 5, PER_CELL),
    Aim("SD 1.5 at 512², over a compiled call per cell", "sd15", "cuda", 2, COMPILED),
    Aim("SDXL at 1024², over a compiled call per cell", "sdxl", "cuda", 1, COMPILED),
)


def figures(sides: Sides, flops_of_a_row: int, matmul_flops: float) -> dict[str, dict[str, Any]]:
    """Of each side, with how often it is as fast as the sides of diffusers, picture for picture.

    Args:
        sides: by name.
        flops_of_a_row: through the UNet; what the other networks do is not counted as use of the chip.
        matmul_flops: a second, of a large product of matrices on the same device.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, side in sides.items():
        rows_a_second = side.rows / side.seconds
        found[name] = {
            "seconds": round(side.seconds, 2),
            "images": side.images,
            "images_a_second": round(side.images_a_second, 3),
            "evaluations": side.evaluations,
            "evaluations_a_second": round(side.evaluations / side.seconds, 1),
            "processor_seconds": round(side.processor, 2),
            **side.facts,
            "times_faster_than": {
                other: round(side.images_a_second / sides[other].images_a_second, 2)
                for other in (PER_CELL, COMPILED, SEEDS)
                if other in sides and other != name
            },
        }
        if side.rows:
            found[name] |= {
                "rows": side.rows,
                "rows_a_second": round(rows_a_second, 1),
                UTILISATION: round(rows_a_second * flops_of_a_row / matmul_flops, 3),
            }
    return found


def aims(found: Mapping[str, Any], size: str, device: str, whole: bool) -> list[dict[str, Any]]:
    """The aims for these networks on this device, and whether they were met; None is what nobody knows.

    Args:
        found: of `figures`.
        size: of the networks.
        device: its kind.
        whole: whether the sheet is the one that they are about, and neither smaller nor a toy.
    """
    return [
        {
            "what": aim.what,
            "least": aim.least,
            "measured": (measured := aim.measured(found)),
            "met": None if measured is None or not whole else measured >= aim.least,
            "whole_sheet": whole,
        }
        for aim in AIMS
        if (aim.size, aim.device) == (size, device)
    ]


def lines(report: Mapping[str, Any]) -> list[str]:
    """What to read of a report."""
    found = [
        f"{name}: {side['images_a_second']} images/s, {side['evaluations_a_second']} evaluations/s"
        + "".join(f", {times} × {other}" for other, times in side["times_faster_than"].items())
        for name, side in report["sides"].items()
    ]
    farm = report["sides"][FARM]
    found.append(
        f"{FARM}: {farm['rows_a_second']} rows/s; the UNet alone, by rows a call: "
        + "; ".join(f"{way} {curve}" for way, curve in report["unet_rows_a_second_by_rows_a_call"].items())
    )
    found.append(
        f"{FARM}: {farm['rows_a_call']} rows a call, occupancy {farm['occupancy']}, "
        f"{farm[UTILISATION]:.0%} of a matmul's FLOP/s; seconds: "
        + ", ".join(f"{name} {seconds}" for name, seconds in farm["seconds_by_request"].items())
    )
    for aim in report["aims"]:
        met = {True: "met", False: "not met", None: "not known"}[aim["met"]]
        of = "" if aim["whole_sheet"] else ", since the sheet is a smaller one"
        found.append(f"aim: {aim['what']}: {aim['measured']}, at least {aim['least']} is wanted: {met}{of}")
    return found
