"""A renderer that paints: fast, and it dies, raises, fails or hangs when the prompt says so."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from farm.cell import Cell, Settings
from farm.sampling import Samplers
from farm.work import Kind, Tally, Work

MODEL = "paint"


@dataclass(frozen=True)
class Painted:
    cell: Cell
    image: Image.Image | None
    error: str
    seconds: float
    evaluations: int = 0
    remark: str = ""


class Painter:
    """Takes `steps` steps of 10 ms for each cell; notes each cell it begins in a file of the checkpoint."""

    batch = 4

    def __init__(self, checkpoints: Mapping[str, Path], device: str) -> None:
        self.notes = checkpoints[MODEL] / f"{os.getpid()}-{id(self)}.txt"
        self.left: dict[int, int] = {}
        self.said: list[str] = []
        self.cells: dict[int, Cell] = {}
        self.steps = 0

    @property
    def hungry(self) -> int:
        return max(0, self.batch - len(self.left))

    @property
    def idle(self) -> bool:
        return not self.left

    def submit(self, cell: Cell, samplers: Samplers) -> None:
        self.cells[cell.number] = cell
        self.left[cell.number] = cell.settings.steps
        with self.notes.open("a") as file:
            file.write(f"{cell.number}\n")

    def take_work(self) -> Work:
        steps, self.steps = self.steps, 0
        said, self.said = tuple(self.said), []
        return Work({Kind("predict", MODEL): Tally(steps, steps, steps, 0.01 * steps)}, notes=said)

    def step(self) -> list[Painted]:
        time.sleep(0.01)
        self.steps += 1
        self.left = {number: left - 1 for number, left in self.left.items()}
        return [self.paint(number) for number, left in self.left.copy().items() if left <= 0]

    def close(self) -> None:
        self.left.clear()

    def paint(self, number: int) -> Painted:
        del self.left[number]
        cell = self.cells.pop(number)
        match cell.settings.prompt:
            case "poison":
                os._exit(1)
            case "boom":
                raise ZeroDivisionError("the network is gone")
            case "hang once" if not (flag := self.notes.with_name("hung")).exists():
                flag.touch()
                time.sleep(3600)
            case "talk":
                self.said.append(f"cell {number} says something")
            case "bad":
                return Painted(cell, None, "NaN at step 3", 0.01)
        return Painted(cell, Image.new("RGB", (8, 8), colour(cell)), "", 0.01, cell.settings.steps)


def colour(cell: Cell) -> tuple[int, int, int]:
    seed = cell.settings.seed
    return seed % 256, seed // 256 % 256, 77


def cells(prompts: list[str], steps: int = 2) -> list[Cell]:
    return [
        Cell(number, (number,), Settings(MODEL, prompt, steps=steps, seed=number)).keyed("hash")
        for number, prompt in enumerate(prompts, 1)
    ]


def begun(folder: Path) -> list[int]:
    """Numbers of all cells that any painter has begun, once for each time."""
    return [int(line) for file in folder.glob("*.txt") for line in file.read_text().split()]
