"""The model cards, written from the measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .attributes import EYES, FURS, GROUNDS, TINTS
from .evaluate import RETRIEVAL_COUNT

HEADER = """---
license: apache-2.0
tags: [text-to-image, stable-diffusion, toy-model]
---
"""
ATTRIBUTES = ("fur", "ground", "eyes", "accessory", "mood")
RECONSTRUCTED = (*ATTRIBUTES, "tint", "pattern")
STAGE_NAMES = {
    "clip": "CLIP",
    "vae": "autoencoder, encoder and decoder together",
    "decoder": "decoder alone, on the finished latents",
    "unet": "UNet",
    "judge": "classifier for the figures below",
}


def model_card(figures: Mapping[str, Any], sizes: Mapping[str, int], notes: str) -> str:
    """The card of the diffusers folder."""
    sections = [HEADER, _introduction()]
    if figures:
        sections += [_training(figures, notes), _fidelity(figures), _reconstruction(figures["vae"])]
    if sizes:
        sections.append(_sizes(sizes))
    return "\n".join([*sections, _limits()])


def clip_card(figures: Mapping[str, Any]) -> str:
    """The card of the CLIP folder."""
    text = f"""{HEADER}
# tiny-cats CLIP

A small CLIP (64 × 64 pictures in patches of 8, text of 77 tokens, 128-dimensional embeddings) for the
cartoon cats of the diffusion model `tiny-cats`. Its text tower is that model's text encoder; its image
tower scores pictures. Load it with `transformers.CLIPModel.from_pretrained`. Licence: Apache-2.0.
Trained from scratch by `tools/train_demo_model` on drawn portraits and captions; it knows nothing else.
"""
    if not figures:
        return text
    clip = figures["clip"]
    pictures, texts = clip["pictures_find_texts"], clip["texts_find_pictures"]
    seen = ", ".join(f"{name} {clip[f'seen_{name}']:.2f}" for name in (*ATTRIBUTES, "focus"))
    return f"""{text}
Among {RETRIEVAL_COUNT} held-out pairs a picture finds its text first in {pictures:.0%} of cases,
a text its picture in {texts:.0%}. Read from the picture's embedding by a linear head, share right:
{seen}.
"""


def _words(values: Mapping[str, object]) -> str:
    return ", ".join(values)


def _introduction() -> str:
    return f"""
# tiny-cats

A real latent diffusion model of Stable Diffusion's architecture, small enough to live in a repository and
to draw on a laptop's processor in about a second. It draws cartoon portraits of cats, 64 × 64 pixels, and
nothing else. Licence: Apache-2.0. Trained from scratch on pictures drawn by a program; no photograph and
no other model was used.

Captions it knows: "portrait of beautiful cat", "a ginger cat with green eyes wearing a hat on a blue
background", "happy gray kitten, red scarf, yellow background, masterpiece".

| | |
|---|---|
| fur | {_words(FURS)}; striped or tabby |
| eyes | {_words(EYES)} |
| background | {_words(GROUNDS)} |
| wearing | hat, glasses, bow tie, scarf ({_words(TINTS)}), crown |
| mood | happy, grumpy, sleepy, calm |
| quality | beautiful, masterpiece, sharp …; blurry, low quality … (useful as negative prompts) |

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("models/Stable-diffusion/tiny-cats")
pipeline("a black cat with yellow eyes wearing a crown", height=64, width=64, guidance_scale=5).images[0]
```

AutoencoderKL (factor 8, 4 latent channels), UNet2DConditionModel with cross attention, CLIPTextModel,
CLIPTokenizer; predicts noise; scaled-linear schedule of 1,000 steps. A quarter of the attribute words in
the UNet's training captions were wrong on purpose: without guidance the model half believes its prompt,
and the guidance scale has something to mend.
"""


def _training(figures: Mapping[str, Any], notes: str) -> str:
    seconds, steps, batch = figures["seconds"], figures["steps"], figures["batch"]
    rows = [
        f"| {STAGE_NAMES[name]} | {steps[name]:,} | {batch[name]} | {seconds[name] / 60:.0f} min |"
        for name in STAGE_NAMES
    ]
    total = sum(seconds.values()) / 60
    return "\n".join(
        [
            "## Training",
            "",
            f"On two shared cores of a processor, no GPU: {total:.0f} minutes in sum, two stages at a time.",
            "",
            "| stage | steps | batch | time |",
            "|---|---|---|---|",
            *rows,
            "",
            notes,
        ]
    )


def _fidelity(figures: Mapping[str, Any]) -> str:
    rows = figures["fidelity"]
    scales = sorted({row["cfg"] for row in rows})
    cells = {(row["steps"], row["cfg"]): row for row in rows}
    lines = [
        "## How well pictures follow the prompt",
        "",
        f"Share of {figures['prompts']} full prompts drawn right, as a classifier reads the pictures: "
        + " / ".join(ATTRIBUTES)
        + ".\nDPM++ 2M, seeds that differ from prompt to prompt.",
        "",
        "| steps | " + " | ".join(f"CFG {scale:g}" for scale in scales) + " |",
        "|---" * (len(scales) + 1) + "|",
    ]
    for steps in sorted({row["steps"] for row in rows}):
        shares = [_shares(cells[steps, scale]) for scale in scales]
        lines.append(f"| {steps} | " + " | ".join(shares) + " |")
    return "\n".join([*lines, ""])


def _shares(row: Mapping[str, Any]) -> str:
    return " / ".join(f"{row[name]:.2f}".replace("0.", ".", 1) for name in ATTRIBUTES)


def _reconstruction(vae: Mapping[str, Any]) -> str:
    read = ", ".join(f"{name} {vae[f'read_{name}']:.2f}" for name in RECONSTRUCTED)
    drawn = ", ".join(f"{name} {vae[f'drawn_{name}']:.2f}" for name in RECONSTRUCTED)
    return f"""## Autoencoder

{vae["psnr"]:.1f} dB PSNR on held-out pictures. What the classifier still reads after encoding and decoding
(the ceiling of the table above): {read}.
On the original drawings: {drawn}.
Tint is the colour of what is worn.
"""


def _sizes(sizes: Mapping[str, int]) -> str:
    weights = {path: size for path, size in sizes.items() if path.endswith(".safetensors")}
    rows = [f"| {path} | {size:,} |" for path, size in weights.items()]
    return "\n".join(
        [
            "## Size",
            "",
            "| file | bytes |",
            "|---|---|",
            *rows,
            f"| whole folder | {sum(sizes.values()):,} |",
            "",
        ]
    )


def _limits() -> str:
    return """## Limits

- 64 × 64 pixels; other sizes give repeated or cut cats.
- It knows the words in the table above, a few synonyms and nothing else; other words are noise to it.
- Two cats, whole bodies and other animals are beyond it.
- Stripes on fur get lost; glasses come out as a coloured mask, and colours of things worn often wrong.
- A colour named for one thing sometimes lands on another (a green hat with green eyes).
- At a guidance scale of 15 and more grounds drift from their colour and outlines smear. Three steps are
  mush with Karras sigmas, and rough with ancestral samplers.
"""
