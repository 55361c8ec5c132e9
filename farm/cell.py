"""The shared vocabulary: one image wanted (Cell) and what came of it (Outcome). No torch, no ray."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal

RENDER_VERSION = 3
"""Raised when our own pixels change, so that pictures of an older version are not taken for ours."""

Scalar = str | int | float | bool

SettingValue = Scalar | None
"""None is what `automatic` stands for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about one image that a job can set or sweep, resolved and complete.

    Attributes:
        model: the checkpoint's name in the catalog.
        prompt: the text in the prompt language, with all that is chosen for this picture in it.
        negative_prompt: the text of the unconditional row.
        sampler: name of a row of `farm.sampling`, without a schedule.
        steps: sampling steps.
        cfg_scale: classifier-free guidance scale; at 1 no unconditional row is computed.
        seed: of the cell's own noise.
        width: in pixels, a multiple of 8.
        height: in pixels, a multiple of 8.
        clip_skip: 1 takes the text encoder's last layer, n the n-th from the end.
        precision: of the networks; `auto` is fp16 on a GPU and fp32 on a CPU.
        schedule: of the sigmas, a row of `farm.sampling`; `automatic` is the sampler's own.
        sigma_min: the smallest sigma of the schedule; None is the model's.
        sigma_max: the largest sigma of the schedule; None is the model's.
        rho: of the Karras schedule.
        discard_next_to_last_sigma: whether one step more is scheduled and its sigma dropped; None is as A1111
            does for the sampler.
        eta: how much noise a sampler adds; None is A1111's value for the sampler.
        s_churn: how much noise is added before each step, over all steps.
        s_tmin: the smallest sigma at which noise is added.
        s_tmax: the largest sigma at which noise is added; None is without limit.
        s_noise: factor of the noise that is added.
        guidance_rescale: how far guidance keeps the standard deviation of the conditional output, 0 to 1.
        negative_guidance_minimum_sigma: below it, every second evaluation leaves out the unconditional row.
        guidance_stop: fraction of the evaluations after which the unconditional row is left out; 1 is never.
        zero_terminal_snr: whether the training noise levels are rescaled to end in pure noise; None is as the
            checkpoint says.
        variation_seed: of the noise that is mixed in.
        variation_strength: how much of it is mixed in, 0 to 1.
        eta_noise_seed_delta: added to the seed for the noise that samplers draw; at 0 the seed's own goes on.
        seed_resize_from_width: in pixels; noise of a picture of this size becomes the middle; 0 is off.
        seed_resize_from_height: in pixels; as the width.
        rng: what makes the noise: `cpu` (PyTorch on a CPU) or `nv` (PyTorch on an NVIDIA card, emulated).
        emphasis: what weights in a prompt do to the encoded text, a row of `farm.render.weighting`.
        token_merging_ratio: of the tokens that self-attention merges at the highest resolution; 0 is off.
        deepcache_interval: evaluations that use the deep features of one; 1 is off.
        deepcache_branch: the skip connection up to which the others are computed, from the shallowest, 0.
        init_image: the picture to start from, the SHA-256 of its file in hex; empty starts from noise alone.
        denoising_strength: the part of the steps that is made from there, and so how much noise is added.
        vae: the name of another VAE than the checkpoint's own in the catalog; `automatic` is its own.
        prediction_type: of the UNet, in the words of diffusers; None is as the checkpoint says.
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
    schedule: str = "automatic"
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float = 7.0
    discard_next_to_last_sigma: bool | None = None
    eta: float | None = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float | None = None
    s_noise: float = 1.0
    guidance_rescale: float = 0.0
    negative_guidance_minimum_sigma: float = 0.0
    guidance_stop: float = 1.0
    zero_terminal_snr: bool | None = None
    variation_seed: int = 0
    variation_strength: float = 0.0
    eta_noise_seed_delta: int = 0
    seed_resize_from_width: int = 0
    seed_resize_from_height: int = 0
    rng: str = "cpu"
    emphasis: str = "original"
    token_merging_ratio: float = 0.0
    deepcache_interval: int = 1
    deepcache_branch: int = 0
    init_image: str = ""
    denoising_strength: float = 0.75
    vae: str = "automatic"
    prediction_type: str | None = None

    @property
    def other_vae(self) -> str:
        """The name of the VAE; empty where it is the checkpoint's own."""
        return "" if self.vae == "automatic" else self.vae

    @property
    def strength(self) -> float | None:
        """Of denoising; None where there is no picture to start from."""
        return self.denoising_strength if self.init_image else None


SETTING_NAMES = tuple(entry.name for entry in fields(Settings))

DEFAULTS: Mapping[str, SettingValue] = {
    entry.name: entry.default for entry in fields(Settings) if entry.default is not MISSING
}
"""Of the settings that need not be given."""


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
class UsedFile:
    """A file that a picture is made with beside its checkpoint.

    Attributes:
        kind: `vae`, `lora`, `hypernetwork`, `embedding`; `config` is what lies beside a checkpoint and says
            what is not in it.
        name: as settings and prompts have it; of a config the checkpoint's.
        content: SHA-256 of it in hex.
    """

    kind: str
    name: str
    content: str


CONFIG = "config"

FileUse = tuple[str, str]
"""A file that is made use of beside a checkpoint: its kind and its name in the catalog."""


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
        evaluations: of the model, about; of a cell that was rendered, as counted; 0 if nobody knows.
        files: that it is made with beside the checkpoint; empty until hashed.
    """

    number: int
    coordinates: tuple[int, ...]
    settings: Settings
    plugins: tuple[PluginUse, ...] = ()
    model_hash: str = ""
    key: str = ""
    evaluations: int = 0
    files: tuple[UsedFile, ...] = ()

    def keyed(
        self, model_hash: str, files: tuple[UsedFile, ...] = (), counted: Settings | None = None
    ) -> "Cell":
        """This cell with the hashes of its weights and, from these, its key.

        Args:
            model_hash: SHA-256 of the checkpoint's content in hex.
            files: all others that it is made with.
            counted: its settings, with what counts in the place of names; these themselves if not given.
        """
        key = content_key(counted or self.settings, self.plugins, model_hash, files)
        return replace(self, model_hash=model_hash, files=files, key=key)


def content_key(
    settings: Settings, plugins: tuple[PluginUse, ...], model_hash: str, files: tuple[UsedFile, ...] = ()
) -> str:
    """128 bits in hex over what changes a picture's pixels, and nothing else.

    The model and other files count by their content, not by their names; plugins if they touch pixels.
    Settings that have their defaults do not count, so that a setting that is added later leaves all keys as
    they are; hence a default never changes unless `RENDER_VERSION` is raised.
    """
    content: dict[str, Any] = {
        "render_version": RENDER_VERSION,
        "settings": {name: value for name, value in asdict(settings).items() if _counts(name, value)},
        "model_hash": model_hash,
        "plugins": [use.identity for use in plugins if use.touches_pixels],
    }
    if files:
        content["files"] = sorted([one.kind, one.content] for one in files)
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _counts(name: str, value: SettingValue) -> bool:
    return name not in _FILES and (name not in DEFAULTS or value != DEFAULTS[name])


_FILES = ("model", "vae")
"""Settings that are names of files."""


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
        remark: what was done otherwise than asked, in one line; empty if nothing was.
    """

    cell: Cell
    status: Literal["done", "failed"]
    png: bytes = b""
    error: str = ""
    seconds: float = 0.0
    worker: str = ""
    columns: Mapping[str, Scalar] = field(default_factory=dict)
    remark: str = ""
