"""The names of tensors in files of LoRA: of which network, which layer, and what they are to it."""

import re
from typing import NamedTuple

NETWORKS = ("unet", "text_encoder", "text_encoder_2")
"""Of a Stable Diffusion pipeline, those that LoRA change, as diffusers calls them."""

_PREFIXES = (
    ("lora_unet_", NETWORKS[:1]),  # kohya's trainers, A1111
    ("lora_te_", NETWORKS[1:2]),
    ("lora_te1_", NETWORKS[1:2]),  # of SDXL
    ("lora_te2_", NETWORKS[2:]),
    ("unet.", NETWORKS[:1]),  # diffusers
    ("text_encoder.", NETWORKS[1:2]),
    ("text_encoder_2.", NETWORKS[2:]),
    ("diffusion_model.", NETWORKS[:1]),  # ComfyUI
    ("text_encoders.clip_l.transformer.", NETWORKS[1:2]),
    ("text_encoders.clip_h.transformer.", NETWORKS[1:2]),  # of Stable Diffusion 2
    ("text_encoders.clip_g.transformer.", NETWORKS[2:]),
    ("lycoris_", NETWORKS),  # LyCORIS' own wrapper, PEFT and diffusers' old files: of one network
    ("", NETWORKS),
)

_KEY = re.compile(
    r"""(?P<layer>.+?)\.(?P<part>
        (?:lora_|lora\.|lora_linear_layer\.|(?<=_lora\.))(?:down|up)\.weight | lora_mid\.weight
      | lora_[AB](?:\.[^.]+)?\.weight
      | alpha | diff | diff_b | w_norm | b_norm
      | hada_w[12]_[ab] | hada_t[12] | lokr_w[12](?:_[ab])? | lokr_t2
      | dora_scale | lora_magnitude_vector(?:\..+)?
      | oft_(?:blocks|diag|R.*) | on_input | [ab][12]\.weight
    )""",
    re.VERBOSE,
)

_OLD_PROCESSOR = re.compile(r"(?:\.processor)?\.to_(?P<projection>q|k|v|out)_lora$")
"""Behind a layer's attention in diffusers' first files."""

_PARTS = (
    ("diff", re.compile(r"w_norm")),
    ("diff_b", re.compile(r"b_norm")),
    ("down", re.compile(r".*down\.weight|lora_A\..*")),
    ("up", re.compile(r".*up\.weight|lora_B\..*")),
    ("mid", re.compile(r"lora_mid\.weight")),
    ("magnitude", re.compile(r"dora_scale|lora_magnitude_vector.*")),
    ("rotation", re.compile(r"oft_.*")),
    ("on_input", re.compile(r"on_input")),
    ("glora", re.compile(r"[ab][12]\.weight")),
)


class Key(NamedTuple):
    """What a tensor's name says.

    Attributes:
        networks: of the pipeline, those that it may belong to.
        layer: of the network, with dots or with `_` for them.
        part: `down`, `up`, `mid`, `alpha`, `hada_w1_a` and so on.
    """

    networks: tuple[str, ...]
    layer: str
    part: str


def key_of(name: str) -> Key | None:
    """What a tensor's name says; None if it is none that a LoRA has."""
    if (found := _KEY.fullmatch(name)) is None:
        return None
    layer, part = found["layer"], found["part"]
    prefix, networks = next(row for row in _PREFIXES if layer.startswith(row[0]))
    layer = layer.removeprefix(prefix).removeprefix("base_model.model.")
    if old := _OLD_PROCESSOR.search(layer):
        layer = layer[: old.start()] + _projection(old["projection"], "self_attn" in layer)
    for short, pattern in _PARTS:
        if pattern.fullmatch(part):
            part = short
    return Key(networks, layer, part)


def _projection(name: str, is_text: bool) -> str:
    """Of a layer's attention, in a text encoder or in a UNet."""
    if is_text:
        return f".{name}_proj"
    return ".to_out.0" if name == "out" else f".to_{name}"
