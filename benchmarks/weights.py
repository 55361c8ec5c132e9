"""How long weights take to load and to change, and how much memory that needs, against what others take.

`python -m benchmarks.weights [--size tiny|sd15] [--json FILE]` makes a checkpoint of Stable Diffusion 1.5's
size with random weights, a single file in fp16 in a temporary folder, and measures, each in a process of its
own: reading the file and nothing else, loading it as the farm and as diffusers do, and what it takes to read
patches, to change them, and to go from one checkpoint to another. Every page of the weights is read, since
nothing is until then of files that are mapped. Memory is what the process had in memory at most, mapped files
included, beyond what it had before; ratios are to the size of the file. Ratios of times are of seconds on a
processor, which say the same on a machine that has other things to do. The networks compute nothing.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import nn

from benchmarks.checkpoint_file import SIZES, write_checkpoint, write_configuration
from benchmarks.process_memory import held, peak
from farm.prompts.patches import OnUnet
from farm.render.checkpoints import Checkpoints
from farm.render.files import NO_FILES
from farm.render.host import read_through
from farm.render.memory import HOST, Memory
from farm.render.patching import Patching
from farm.render.placement import Placed
from farm.render.requests import Predict, Weights
from farm.render.stored import Stored
from farm.render.told import Conditioning
from farm.render.transfers import Transfers
from farm.weights.checkpoint import quiet
from farm.weights.embedding import read_embedding
from farm.weights.layers import layers_of
from farm.weights.loading import load_checkpoint
from farm.weights.reading import read_object

MB = 10**6
RATED = "processor_seconds"
RANK = 16
Apart = Callable[..., dict[str, float]]
TYPES = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Made:
    """What is measured with.

    Attributes:
        checkpoint: the file.
        configuration: a folder of diffusers that says the same without weights.
        patches: files by their kind.
    """

    checkpoint: Path
    configuration: Path
    patches: Mapping[str, Path]


def made(folder: Path, size: str) -> Made:
    """Writes all files into a folder."""
    ends = {"lora": "safetensors", "embedding": "pt", "hypernetwork": "pt"}
    patches = {kind: folder / f"{kind}.{end}" for kind, end in ends.items()}
    found = Made(folder / "a.safetensors", folder / "configuration", patches)
    write_checkpoint(found.checkpoint, SIZES[size])
    write_configuration(found.configuration, SIZES[size])
    networks = load_checkpoint(found.checkpoint, HOST, torch.float16)
    save_file(dict(_lora(networks.unet)), found.patches["lora"])
    width = SIZES[size].text
    torch.save({"string_to_param": {"*": torch.randn(8, width)}, "name": "x"}, found.patches["embedding"])
    pairs: dict[Any, Any] = {each: [_hypernetwork(each) for _ in "kv"] for each in {width, *SIZES[size].unet}}
    torch.save(pairs | {"layer_structure": [1, 2, 1]}, found.patches["hypernetwork"])
    return found


def _lora(unet: nn.Module) -> Any:
    """By kohya's names, of all layers in and around the attention."""
    for path, layer in layers_of(unet).items():
        if "attentions" in path and len(layer.shape) > 1:
            outputs, inputs, *kernel = layer.shape
            name = f"lora_unet_{path.replace('.', '_')}"
            yield f"{name}.lora_down.weight", torch.randn(RANK, inputs, *kernel).half() / 100
            yield f"{name}.lora_up.weight", torch.randn(outputs, RANK, *kernel).half() / 100
            yield f"{name}.alpha", torch.tensor(float(RANK))


def _hypernetwork(width: int) -> dict[str, torch.Tensor]:
    shapes = {"0": (2 * width, width), "1": (width, 2 * width)}
    weights = {f"linear.{number}.weight": torch.randn(*shape) / 100 for number, shape in shapes.items()}
    return weights | {f"linear.{number}.bias": torch.zeros(shape[0]) for number, shape in shapes.items()}


def plain_read(files: Made) -> Any:
    """All bytes into memory."""
    return files.checkpoint.read_bytes()


def by_farm(files: Made, precision: str) -> Any:
    """As a worker loads it."""
    networks = load_checkpoint(files.checkpoint, HOST, TYPES[precision])
    touch(networks.unet, networks.vae, networks.text_encoder)
    return networks


def by_diffusers(files: Made, precision: str) -> Any:
    """As its pipelines load single files."""
    pipeline = StableDiffusionPipeline.from_single_file(
        str(files.checkpoint), config=str(files.configuration), torch_dtype=TYPES[precision],
        local_files_only=True,
    )  # fmt: skip
    touch(pipeline.unet, pipeline.vae, pipeline.text_encoder)
    return pipeline


def touch(*networks: nn.Module) -> None:
    """Reads all of their weights."""
    for network in networks:
        read_through(network.parameters())


SIDES: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "plain read": (plain_read, ()),
    "farm, fp16": (by_farm, ("fp16",)),
    "farm, fp32": (by_farm, ("fp32",)),
    "diffusers, fp16": (by_diffusers, ("fp16",)),
    "diffusers, fp32": (by_diffusers, ("fp32",)),
}


def loading(files: Made, name: str, times: int) -> dict[str, float]:
    """Seconds that it takes, and bytes that it needs; asked of a fresh process.

    Args:
        files: that are there.
        name: of `SIDES`.
        times: with the file in the system's memory, the fastest of which counts; before them there is one
            after the system was asked to forget the file (`cold`), which counts for the bytes.
    """
    act, arguments = SIDES[name]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _in_memory(files.checkpoint, False)
        before = held()
        cold = seconds_of(lambda: act(files, *arguments))
        taken = peak() - before
        _in_memory(files.checkpoint, True)
        clock, processor = best_of(lambda: act(files, *arguments), times)
        return {"processor": processor, "clock": clock, "cold": cold, "bytes": taken}


def _in_memory(path: Path, is_wanted: bool) -> None:
    with path.open("rb") as file:
        if is_wanted:
            while file.read(2**24):
                pass
        elif hasattr(os, "posix_fadvise"):
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def changing(files: Made) -> dict[str, float]:
    """Seconds that it takes to read patches and to change them, on a checkpoint in fp16."""
    placed = Placed(load_checkpoint(files.checkpoint, HOST, torch.float16), Memory(HOST))
    stored = Stored({(kind, "x"): path for kind, path in files.patches.items()})
    patching = Patching(stored.as_files(), Transfers(HOST), lambda _: nullcontext(), print)
    weights, latents, states = Weights("a", "fp16"), torch.zeros(4, 8, 8), Conditioning(torch.zeros(77, 8))

    def patched(weight: float, name: str = "loras") -> None:
        patches = OnUnet(**{name: (("x", weight),)})
        with patching.on_unet(placed, placed.unet, [Predict(weights, latents, 0.0, states, patches=patches)]):
            pass

    def embedding() -> None:
        read_embedding(read_object(files.patches["embedding"]), "x", "x")

    return {
        "a LoRA, read": seconds_of(lambda: patched(1.0)),
        "a LoRA, another weight": best_of(lambda: patched(0.5))[0],
        "a hypernetwork, read": seconds_of(lambda: patched(1.0, "hypernetworks")),
        "a hypernetwork, another strength": best_of(lambda: patched(0.5, "hypernetworks"))[0],
        "an embedding, read": best_of(embedding)[0],
    }


def switching(files: Made) -> dict[str, float]:
    """Seconds that it takes to go from one checkpoint in fp16 to another; both are the same file."""

    def load(name: str, device: torch.device, dtype: torch.dtype) -> Any:
        networks = load_checkpoint(files.checkpoint, device, dtype)
        touch(networks.unet, networks.vae, networks.text_encoder)
        return networks

    checkpoints = Checkpoints(
        load, HOST, Memory(HOST), False, lambda _: None, lambda _: nullcontext(), nullcontext, NO_FILES.vae
    )
    first, second, third = (Weights(name, "fp16") for name in "abc")
    found = {"the first": seconds_of(lambda: checkpoints.of(first))}
    found["the second"] = seconds_of(lambda: checkpoints.of(second))
    found["back to one of two"] = best_of(lambda: [checkpoints.of(first), checkpoints.of(second)])[0] / 2
    checkpoints.of(third)
    found["back to the first after a third"] = seconds_of(lambda: checkpoints.of(first))
    return found


def seconds_of(act: Callable[[], Any]) -> float:
    """Of one time."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def best_of(act: Callable[[], Any], times: int = 10) -> tuple[float, float]:
    """Seconds of the fastest time, by the clock, and of that with least on a processor."""
    clocks, processors = [], []
    for _ in range(times):
        started = time.process_time()
        clocks.append(seconds_of(act))
        processors.append(time.process_time() - started)
    return min(clocks), min(processors)


def report(size: str, times: int, apart: Apart) -> dict[str, Any]:
    """Measures everything.

    Args:
        size: of `SIZES`.
        times: as of `loading`.
        apart: calls a function with arguments, in a fresh process.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = made(Path(folder), size)
        whole = files.checkpoint.stat().st_size
        sides = {}
        for name in SIDES:
            found = apart(loading, files, name, times)
            sides[name] = {
                "processor_seconds": round(found["processor"], 4),
                "seconds": round(found["clock"], 3),
                "seconds_cold": round(found["cold"], 3),
                "memory": round(found["bytes"] / whole, 2),
            }
        read = sides["plain read"][RATED]
        for side in sides.values():
            side["times_a_plain_read"] = round(side[RATED] / read, 2)
        return {
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
            "size": size,
            "file_mb": round(whole / MB),
            "loading": sides,
            "diffusers_over_farm": {
                kind: round(sides[f"diffusers, {kind}"][RATED] / sides[f"farm, {kind}"][RATED], 2)
                for kind in TYPES
            },
            "milliseconds_to_change": _milliseconds(apart(changing, files)),
            "milliseconds_to_switch": _milliseconds(apart(switching, files)),
        }


def in_a_process(act: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Calls it in a fresh one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(act, *arguments).result()


def _milliseconds(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(1000 * one, 2) for name, one in seconds.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="sd15")
    parser.add_argument("--times", type=int, default=3, help="that each is loaded; the fastest counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    text = json.dumps(report(options.size, options.times, in_a_process), indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
