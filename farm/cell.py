"""The shared vocabulary: one image wanted (Cell) and what came of it (Outcome). No torch, no ray."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

RENDER_VERSION = 1
"""Raised when our own pixels change, so that pictures of an older version are not taken for ours."""

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about one image that a job can set or sweep, resolved and complete.

    Attributes:
        model: the checkpoint's name in the catalog.
        prompt: the text as it is encoded, after search-and-replace.
        negative_prompt: the text of the unconditional row.
        sampler: canonical name, a row of `farm.sampling`.
        steps: sampling steps.
        cfg_scale: classifier-free guidance scale; at 1 no unconditional row is computed.
        seed: of the cell's own noise.
        width: in pixels, a multiple of 8.
        height: in pixels, a multiple of 8.
        clip_skip: 1 takes the text encoder's last layer, n the n-th from the end.
        precision: of the networks; `auto` is fp16 on a GPU and fp32 on a CPU.
    """

    model: str
    prompt: str
    negative_prompt: str = ""
    sampler: str = "Euler a"
    steps: int = 20
    cfg_scale: float = 7.0
    seed: int = 0
    width: int = 512
    height: int = 512
    clip_skip: int = 1
    precision: str = "auto"


SETTING_NAMES = tuple(entry.name for entry in fields(Settings))


@dataclass(frozen=True, slots=True)
class PluginUse:
    """A plugin that a job asks for.

    Attributes:
        name: the plugin's name, as in the job file.
        version: the plugin's version; part of the key if it touches pixels.
        settings: its complete settings as JSON with sorted keys.
        touches_pixels: whether it transforms or screens pictures (a score does not).
    """

    name: str
    version: str
    settings: str
    touches_pixels: bool

    @property
    def identity(self) -> str:
        """Equal for uses that give equal results."""
        return f"{self.name} {self.version} {self.settings}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One image wanted.

    Attributes:
        number: from 1, in the order of the job's axes; what people see.
        coordinates: for each axis of the plan, the index of this cell's value.
        settings: what to render.
        plugins: in the order of the job file.
        model_hash: SHA-256 of the checkpoint's content in hex; empty until hashed.
        key: names the pixels; empty until `keyed`.
    """

    number: int
    coordinates: tuple[int, ...]
    settings: Settings
    plugins: tuple[PluginUse, ...] = ()
    model_hash: str = ""
    key: str = ""

    def keyed(self, model_hash: str) -> "Cell":
        """This cell with the hash of its weights and, from that, its key."""
        return replace(self, model_hash=model_hash, key=content_key(self.settings, self.plugins, model_hash))


def content_key(settings: Settings, plugins: tuple[PluginUse, ...], model_hash: str) -> str:
    """128 bits in hex over what changes a picture's pixels, and nothing else.

    The model counts by its content, not by its name; plugins count if they touch pixels.
    """
    content = {
        "render_version": RENDER_VERSION,
        "settings": {name: value for name, value in asdict(settings).items() if name != "model"},
        "model_hash": model_hash,
        "plugins": [use.identity for use in plugins if use.touches_pixels],
    }
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a cell.

    Attributes:
        cell: the cell it is about.
        status: `done` with a picture, or `failed` with an error.
        png: the picture as the bytes of a PNG file, metadata included.
        error: one line, what failed and why.
        seconds: the cell's share of its device's time plus its own post-processing.
        worker: who rendered it.
        columns: what plugins found out (scores, verdicts), for the index.
    """

    cell: Cell
    status: Literal["done", "failed"]
    png: bytes = b""
    error: str = ""
    seconds: float = 0.0
    worker: str = ""
    columns: Mapping[str, Scalar] = field(default_factory=dict)
