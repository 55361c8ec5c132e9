"""LoRA, embeddings and hypernetworks in pictures, as cells name them: against networks with them built in."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.cell import Cell, Settings, UsedFile
from farm.layout import Layout
from farm.plan import Plan
from farm.render.renderer import Renderer
from farm.weights.checkpoint import Networks
from farm.work import Work
from tests.render.rendering import LEVELS, Counting, apart, drawn, render
from tests.weights.lora_files import factors, kohya, product

ART = (UsedFile("embedding", "bad-art", "as hashed"),)
UNET, TEXT = "lora_unet_", "lora_te_text_model_"
BASE = Settings("m", "a ginger cat", "blurry", "Euler", 5, 5.0, 3, 64, 64)


@pytest.fixture(scope="module")
def files(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Two LoRA of which the second is for the text encoder as well, a hypernetwork, an embedding."""
    folder = tmp_path_factory.mktemp("patches")
    save_file(kohya(factors(networks.unet, 4, 0), UNET, 2.0), folder / "ink.safetensors")
    of_text = kohya(factors(networks.text_encoder, 4, 2), TEXT, 2.0)
    save_file(kohya(factors(networks.unet, 4, 1), UNET, 2.0) | of_text, folder / "wash.safetensors")
    torch.save({"step": 3, "name": "pen", 128: (small(3), small(4))}, folder / "pen.pt")
    torch.save({"string_to_param": {"*": torch.randn(2, 128) * 0.3}, "name": "x"}, folder / "bad-art.pt")
    (folder / "torn.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}")
    save_file({"lora_unet_mid_block_x.lora_down.weight": torch.zeros(4, 4)}, folder / "other.safetensors")
    names = {
        "lora": ["ink", "wash", "torn", "other"], "hypernetwork": ["pen"], "embedding": ["bad-art"]
    }  # fmt: skip
    return {(kind, name): next(folder.glob(f"{name}.*")) for kind, each in names.items() for name in each}


def small(seed: int) -> dict[str, torch.Tensor]:
    """One network of a hypernetwork."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"linear.{layer}.{part}": torch.randn(*shape, generator=generator) * 0.05
        for layer, (inputs, outputs) in enumerate([(128, 256), (256, 128)])
        for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
    }


def rendered(
    cells: Sequence[Settings], files: Mapping[tuple[str, str], Path], model: Path
) -> tuple[list[np.ndarray], Work]:
    renderer = Renderer({"m": model}, "cpu", files=files)
    named = [ART if "bad-art" in str(settings) else () for settings in cells]
    return drawn(
        renderer, [Cell(n, (), cell, files=used) for n, (cell, used) in enumerate(zip(cells, named), 1)]
    )


def with_it(networks: Networks, file: Path, weight: float, text: float | None = None) -> Networks:
    """The networks with a LoRA multiplied out into their weights: W + weight · alpha/rank · up · down."""
    state, made = load_file(file), {}
    for attribute, prefix in (("unet", UNET), ("text_encoder", TEXT)):
        network = copy.deepcopy(getattr(networks, attribute))
        scale = weight if attribute == "unet" or text is None else text
        for path, module in network.named_modules():
            name = prefix + path.replace(".", "_")
            if f"{name}.alpha" in state:
                down, up = state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"]
                module.weight.data += scale * (2.0 / 4) * product(down, up)
        made[attribute] = network
    return replace(networks, **made)


@pytest.mark.parametrize(
    ("tag", "name", "unet", "text"),
    [
        ("<lora:ink:0.7>", "ink", 0.7, None),
        ("<lora:ink:-1>", "ink", -1.0, None),
        ("<lora:wash:0.6>", "wash", 0.6, None),
        ("<lora:wash:0.3:0.9>", "wash", 0.9, 0.3),
        ("<lora:wash:0:0.9>", "wash", 0.9, 0.0),
        ("<lora:wash:0.9:0>", "wash", 0.0, 0.9),
    ],
)
def test_a_lora_is_as_if_it_were_part_of_the_weights(
    tag: str, name: str, unet: float, text: float | None, networks: Networks, tiny_model: Path,
    files: dict[tuple[str, str], Path],
) -> None:  # fmt: skip
    wanted = replace(BASE, prompt=f"a ginger cat {tag}")
    [picture], _ = rendered([wanted], files, tiny_model)
    [built_in] = render([BASE], Counting(with_it(networks, files["lora", name], unet, text)))
    [plain] = render([BASE], Counting(networks))
    assert apart(picture, built_in) <= LEVELS and apart(picture, plain) > 20


def test_two_at_once_add_up(networks: Networks, tiny_model: Path, files: dict[tuple[str, str], Path]) -> None:
    wanted = replace(BASE, prompt="a ginger cat <lora:ink:0.5><lora:wash:0.4>")
    [picture], _ = rendered([wanted], files, tiny_model)
    both = with_it(with_it(networks, files["lora", "ink"], 0.5), files["lora", "wash"], 0.4)
    assert apart(picture, render([BASE], Counting(both))[0]) <= LEVELS


def test_a_sweep_does_what_was_planned_and_each_picture_is_as_alone(
    tiny_model: Path, files: dict[tuple[str, str], Path]
) -> None:
    tags = [
        "", "<lora:ink:0.25>", "<lora:ink:0.5>", "<lora:ink:1>", "<lora:wash:0.5>",
        "<lora:ink:1><lora:wash:1>", "<hypernet:pen:0.5>", "<hypernet:pen:1>",
        "<lora:ink:0.5><hypernet:pen:1>",
    ]  # fmt: skip
    cells = [
        replace(BASE, prompt=f"a ginger cat {tag}", negative_prompt=negative, cfg_scale=scale, steps=3)
        for tag in tags
        for negative in ("blurry", "blurry, bad-art")
        for scale in (3.0, 6.0)
    ]
    plan = Plan("a", (), Layout(), tuple(Cell(number, (), one) for number, one in enumerate(cells, 1)))
    pictures, work = rendered(cells, files, tiny_model)
    assert work.of("predict").rows == plan.rows() < plan.unshared_rows()
    assert work.of("load").calls == 1
    assert (work.of("load lora").calls, work.of("load hypernetwork").calls) == (2, 1)
    assert len({picture.tobytes() for picture in pictures}) == len(cells)
    for number in (0, 1, 6, 15, 22, 30, 35):
        [alone], _ = rendered([cells[number]], files, tiny_model)
        assert apart(pictures[number], alone) <= LEVELS


def test_afterwards_a_picture_without_is_the_same_to_the_bit(
    tiny_model: Path, files: dict[tuple[str, str], Path]
) -> None:
    [plain], _ = rendered([BASE], {}, tiny_model)
    renderer = Renderer({"m": tiny_model}, "cpu", files=files)
    tags = "<lora:ink:1><lora:wash:1><hypernet:pen:1>"
    for settings in (replace(BASE, prompt=f"a ginger cat, bad-art {tags}"), BASE):
        renderer.submit(Cell(1, (), settings, files=ART))
        images = [one.image for _ in iter(lambda: renderer.idle, True) for one in renderer.step()]
    renderer.close()
    assert np.array_equal(np.asarray(images[-1]), plain)


def test_rows_of_different_weights_share_calls(tiny_model: Path, files: dict[tuple[str, str], Path]) -> None:
    cells = [
        replace(BASE, prompt=f"a ginger cat <lora:ink:{weight / 8}>", cfg_scale=1.0, steps=4)
        for weight in range(1, 9)
    ]
    _, work = rendered(cells, files, tiny_model)
    assert work.of("predict").calls == 4 and work.of("predict").rows == 32


def test_a_tag_without_a_file_does_nothing(tiny_model: Path) -> None:
    wanted = replace(BASE, prompt="a ginger cat <lora:nobody:1><hypernet:nobody:1>")
    (picture, plain), _ = rendered([wanted, BASE], {}, tiny_model)
    assert np.array_equal(picture, plain)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torn", "its header says that it is 8 bytes long, but only 2 follow: it is torn"),
        ("other", "the LoRA 'other' cannot be applied to this checkpoint: 1 of the 1 layers that it changes"),
    ],
)
def test_a_file_that_cannot_be_used_fails_its_cells_alone(
    name: str, reason: str, tiny_model: Path, files: dict[tuple[str, str], Path]
) -> None:
    renderer = Renderer({"m": tiny_model}, "cpu", files=files)
    cells = [
        BASE,
        *(replace(BASE, prompt=f"a cat <lora:{name}:{weight}>") for weight in (0.5, 1)),
        replace(BASE, prompt="a cat <lora:ink:1>"),
    ]
    for number, settings in enumerate(cells, 1):
        renderer.submit(Cell(number, (), settings))
    errors: dict[int, str] = {}
    while not renderer.idle:
        errors |= {one.cell.number: one.error for one in renderer.step()}
    renderer.close()
    assert (errors[1], errors[4]) == ("", "")
    assert reason in errors[2] and errors[2] == errors[3] and "\n" not in errors[2]
