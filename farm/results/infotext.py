"""What a picture says about itself: A1111's infotext, and the cell as JSON."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

import farm
from farm.cell import Cell, PluginUse, Scalar, Settings, UsedFile
from farm.errors import FarmError
from farm.results.a1111 import noise_keys, sampler_keys, sampling_keys
from farm.results.writing import shown

INFOTEXT_CHUNK = "parameters"
"""The PNG text chunk in which A1111 and everything around it looks for infotext."""

CELL_CHUNK = "farm"
"""The PNG text chunk that holds the cell as JSON."""


def infotext(cell: Cell, extra: Mapping[str, Scalar | None] | None = None) -> str:
    """The cell's settings as A1111 writes them: prompt, negative prompt, one line of `Key: value`.

    Readers split the text at `Negative prompt:`, so a prompt that contains these very words is read back
    wrongly by them; `read_cell` is exact.

    Args:
        cell: what was rendered.
        extra: more keys for the last line, before `Version`; None values are left out.
    """
    settings = cell.settings
    parts = [settings.prompt.strip()]
    if settings.negative_prompt.strip():
        parts.append(f"Negative prompt: {settings.negative_prompt.strip()}")
    pairs = {**_parameters(cell), **(extra or {}), **_patch_keys(cell), "Version": f"farm {farm.__version__}"}
    parts.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(parts).strip()


def _parameters(cell: Cell) -> dict[str, Scalar | None]:
    settings = cell.settings
    return {
        "Steps": settings.steps,
        **sampler_keys(settings),
        "CFG scale": settings.cfg_scale,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model hash": cell.model_hash[:10] or None,
        "Model": settings.model.replace(",", "").replace(":", "") or None,
        **_vae_keys(cell),
        **noise_keys(settings),
        "Denoising strength": settings.strength,
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None,
        "ENSD": settings.eta_noise_seed_delta or None,
        **sampling_keys(settings),
    }


def _vae_keys(cell: Cell) -> dict[str, Scalar | None]:
    """Of another VAE than the checkpoint's own."""
    vae = next((file for file in cell.files if file.kind == "vae"), None)
    return {} if vae is None else {"VAE hash": vae.content[:10], "VAE": vae.name}


def _patch_keys(cell: Cell) -> dict[str, Scalar | None]:
    """Of LoRA and embeddings, by their names without folders, as other programs look for them."""
    found: dict[str, Scalar | None] = {}
    for key, kind in (("Lora hashes", "lora"), ("TI hashes", "embedding")):
        files = [file for file in cell.files if file.kind == kind]
        if files:
            pairs = (f"{file.name.rpartition('/')[2]}: {file.content[:10]}" for file in files)
            found[key] = ", ".join(pairs)
    return found


def _quoted(value: Scalar) -> str:
    text = shown(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def png_bytes(image: Image.Image, cell: Cell, extra: Mapping[str, Scalar | None] | None = None) -> bytes:
    """A PNG file that carries the cell's infotext and the cell itself.

    Args:
        image: the picture, in any mode that PNG knows.
        cell: what was rendered.
        extra: more keys for the infotext.
    """
    texts = PngImagePlugin.PngInfo()
    texts.add_text(INFOTEXT_CHUNK, infotext(cell, extra))  # iTXt where Latin-1 does not reach
    texts.add_text(CELL_CHUNK, json.dumps(asdict(cell)))
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=texts)
    return file.getvalue()


def read_infotext(png: Path) -> str:
    """The infotext of a stored picture.

    Raises:
        FarmError: it is no PNG file, or has none.
    """
    return _chunk(png, INFOTEXT_CHUNK)


def read_cell(png: Path) -> Cell:
    """The cell that a stored picture was rendered for, exactly as it was.

    Raises:
        FarmError: it is no PNG file, or not one of ours.
    """
    try:
        return _cell(json.loads(_chunk(png, CELL_CHUNK)))
    except (KeyError, TypeError, ValueError) as error:
        raise FarmError(f"{png}: its chunk {CELL_CHUNK!r} does not describe a cell: {error}") from error


def _chunk(png: Path, name: str) -> str:
    with open_picture(png) as image:
        text = image.info.get(name)
    if text is None:
        raise FarmError(f"{png}: has no text chunk {name!r}, so farm did not write it")
    return str(text)


def _cell(entry: Mapping[str, Any]) -> Cell:
    return Cell(
        number=entry["number"],
        coordinates=tuple(entry["coordinates"]),
        settings=Settings(**entry["settings"]),
        plugins=tuple(PluginUse(**use) for use in entry["plugins"]),
        model_hash=entry["model_hash"],
        key=entry["key"],
        evaluations=entry.get("evaluations", 0),  # cells of before have none, nor files
        files=tuple(UsedFile(**file) for file in entry.get("files", ())),
    )


def open_picture(png: Path) -> PngImagePlugin.PngImageFile:
    """Open one of our own PNG files, however large: the limit of `Image.open` is meant for strangers' files.

    Raises:
        FarmError: it is not there, or no PNG file.
    """
    try:
        return PngImagePlugin.PngImageFile(png)
    except (OSError, SyntaxError, ValueError) as error:
        raise FarmError(f"{png}: cannot be read as PNG: {error}") from error
