"""SDXL: against diffusers' pipelines with the same weights, and against plain loops."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, cycle, product
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from farm.cell import Cell, Settings
from farm.layout import Layout
from farm.plan import Plan
from farm.prompts.emphasis import weighted
from farm.render.device import PRECISIONS
from farm.render.renderer import Renderer
from farm.render.requests import Decode, EncodeImage, EncodeText, Open, Request, Weights
from farm.render.runner import Runner
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.on_the_model import decoded
from tests.render.oracles import k_diffusion
from tests.render.rendering import LEVELS, Counting, apart, cat_file, render
from tests.render.test_img2img import their_latents
from tests.render.test_prompts import CASES, Chunks, Said, always, lengthened, plain

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

CPU = torch.device("cpu")
BASE = Settings("m", "a ginger cat", "blurry", "Euler", 6, 5.0, 3, 64, 64, schedule="uniform")
THEIRS = replace(BASE, sampler="diffusers:EulerDiscreteScheduler", schedule="automatic", eta=0.0)


@pytest.fixture(scope="module")
def whole_pipeline(sdxl_folder: Path) -> StableDiffusionXLPipeline:
    whole = StableDiffusionXLPipeline.from_pretrained(sdxl_folder, dtype=torch.float32)
    whole.set_progress_bar_config(disable=True)
    return whole


@pytest.fixture
def pipeline(whole_pipeline: StableDiffusionXLPipeline) -> Iterator[StableDiffusionXLPipeline]:
    """The tests may give it a scheduler: it gets the model's own back."""
    own = whole_pipeline.scheduler
    yield whole_pipeline
    whole_pipeline.scheduler = own


def picture(pipeline: Any, wanted: Settings, **options: Any) -> np.ndarray:
    """The pipeline's own; whatever of the settings it takes."""
    texts = {"prompt": wanted.prompt, "negative_prompt": wanted.negative_prompt}
    given = {"width": wanted.width, "height": wanted.height} | texts | options
    generator = torch.Generator().manual_seed(wanted.seed)
    [image] = pipeline(
        num_inference_steps=wanted.steps, guidance_scale=wanted.cfg_scale, generator=generator, **given
    ).images
    return np.asarray(image)


# diffusers' pipeline


@pytest.mark.parity
@pytest.mark.parametrize("name", ["EulerDiscrete", "DDIM", "DPMSolverMultistep", "EulerAncestralDiscrete"])
@pytest.mark.parametrize(
    "change", [{}, {"prompt": "a black cat with a hat", "width": 96, "steps": 4}, {"cfg_scale": 1.0}], ids=str
)
def test_equals_the_pipeline(
    name: str, change: dict[str, Any], sdxl: Networks, pipeline: StableDiffusionXLPipeline
) -> None:
    wanted = replace(THEIRS, sampler=f"diffusers:{name}Scheduler", **change)
    kind = getattr(diffusers, f"{name}Scheduler")
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    assert apart(render([wanted], Counting(sdxl))[0], picture(pipeline, wanted)) <= LEVELS


@pytest.mark.parity
def test_our_own_sampler_equals_the_pipeline_s(sdxl: Networks, pipeline: StableDiffusionXLPipeline) -> None:
    """At ten steps, whose evenly spaced times are whole ones."""
    config = {**pipeline.scheduler.config, "timestep_spacing": "linspace"}
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    wanted = replace(BASE, steps=10)
    assert apart(render([wanted], Counting(sdxl))[0], picture(pipeline, wanted)) <= LEVELS


@pytest.mark.parity
def test_of_an_empty_negative_prompt_it_is_told_nothing(
    sdxl: Networks, pipeline: StableDiffusionXLPipeline
) -> None:
    """A1111 does so always, diffusers where there is no negative prompt; an empty one it encodes."""
    wanted = replace(THEIRS, negative_prompt="")
    ours = render([wanted], Counting(sdxl))[0]
    assert apart(ours, picture(pipeline, wanted, negative_prompt=None)) <= LEVELS
    assert apart(ours, picture(pipeline, wanted)) > LEVELS
    space = replace(THEIRS, negative_prompt=" ")
    assert apart(render([space], Counting(sdxl))[0], picture(pipeline, space, negative_prompt="")) <= LEVELS


@pytest.mark.parity
def test_an_empty_prompt_is_encoded_even_beside_a_negative_one(
    sdxl: Networks, pipeline: StableDiffusionXLPipeline
) -> None:
    """They have the same text, and do not share a first row."""
    wanted = replace(THEIRS, prompt="", negative_prompt="")
    own = replace(BASE, prompt="", negative_prompt="", steps=10)
    ours, alike = render([wanted, own], Counting(sdxl))
    assert apart(ours, picture(pipeline, wanted, negative_prompt=None)) <= LEVELS
    config = {**pipeline.scheduler.config, "timestep_spacing": "linspace"}
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    assert apart(alike, picture(pipeline, own, negative_prompt=None)) <= LEVELS


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "config", "steps"),
    [
        ("EulerDiscrete", {"prediction_type": "v_prediction"}, 6),
        ("EulerDiscrete", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
                           "timestep_spacing": "trailing"}, 6),
        ("EulerAncestralDiscrete", {"timestep_spacing": "trailing"}, 1),
        ("EulerDiscrete", {"timestep_spacing": "trailing"}, 4),
        ("LCM", {}, 4),
    ],
    ids=["v", "v with zero terminal SNR", "Turbo", "Lightning", "LCM"],
)  # fmt: skip
def test_equals_the_pipeline_as_other_checkpoints_are_trained(
    name: str, config: dict[str, Any], steps: int, sdxl: Networks, pipeline: StableDiffusionXLPipeline
) -> None:
    of_theirs = {**sdxl.scheduler_config, **config}
    pipeline.scheduler = getattr(diffusers, f"{name}Scheduler").from_config(of_theirs)
    scale = THEIRS.cfg_scale if "prediction_type" in config else 1.0
    wanted = replace(THEIRS, sampler=f"diffusers:{name}Scheduler", steps=steps, cfg_scale=scale)
    ours = render([wanted], Counting(replace(sdxl, scheduler_config=of_theirs)))[0]
    assert apart(ours, picture(pipeline, wanted)) <= LEVELS


@pytest.mark.parity
@pytest.mark.parametrize("strength", [0.4, 0.8])
def test_from_a_picture_it_equals_the_pipeline(
    strength: float, sdxl: Networks, pipeline: StableDiffusionXLPipeline
) -> None:
    key, file = cat_file(64, 64)
    wanted = replace(THEIRS, sampler="diffusers:DDIMScheduler", init_image=key, denoising_strength=strength)
    parts = {**pipeline.components, "scheduler": diffusers.DDIMScheduler.from_config(sdxl.scheduler_config)}
    theirs = StableDiffusionXLImg2ImgPipeline(**parts)
    theirs.set_progress_bar_config(disable=True)
    expected = picture(theirs, wanted, image=their_latents(file, sdxl), strength=strength)
    assert apart(render([wanted], Counting(sdxl), pictures={key: file})[0], expected) <= LEVELS


# The prompt language


def told(
    chunks: Chunks, networks: Networks, clip_skip: int = 1, emphasis: str = "original"
) -> tuple[torch.Tensor, torch.Tensor]:
    """States `(1, chunks · 77, channels)` and pooled text `(1, channels)`, encoder by encoder."""
    sides, pooled = [], []
    for tokenizer, encoder in (
        (networks.tokenizer, networks.text_encoder),
        (networks.tokenizer_2, networks.text_encoder_2),
    ):
        states = []
        for pieces in chunks:
            ids, weights = [tokenizer.bos_token_id], [1.0]
            for text, weight in pieces:
                tokens = tokenizer(text, add_special_tokens=False).input_ids
                ids, weights = ids + tokens, weights + [weight] * len(tokens)
            filling = 77 - len(ids)
            ids += [tokenizer.eos_token_id, *[tokenizer.pad_token_id] * (filling - 1)]
            output = encoder(torch.tensor([ids]), output_hidden_states=True)
            hidden = output.hidden_states[-max(2, clip_skip)]
            factors = torch.tensor(weights + [1.0] * filling)[None, :, None]
            multiplied = hidden * factors
            if emphasis == "original":
                states.append(multiplied * hidden.mean() / multiplied.mean())
            else:
                empty = [tokenizer.bos_token_id, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * 75]
                nothing = encoder(torch.tensor([empty]), output_hidden_states=True).hidden_states[-2]
                states.append(nothing + factors * (hidden - nothing))
            pooled.append(output.get("text_embeds"))
        sides.append(torch.cat(states, dim=1))
    return torch.cat(sides, dim=-1), next(one for one in pooled if one is not None)


@torch.inference_mode()
def loop(
    wanted: Settings, said: Said, networks: Networks, negative: Callable[[int], str] | None = None
) -> np.ndarray:
    """k-diffusion's Euler over composable guidance, one row at a time.

    Args:
        wanted: the cell.
        said: what its prompt says.
        networks: of SDXL.
        negative: what its negative prompt says at an evaluation, if that changes.
    """
    alphas = diffusers.DDPMScheduler.from_config(networks.scheduler_config).alphas_cumprod
    evaluations = count()
    height, width = wanted.height, wanted.width
    ids = torch.tensor([[height, width, 0, 0, height, width]])

    def unet(x: torch.Tensor, time: torch.Tensor, states: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        added = {"text_embeds": pooled, "time_ids": ids}
        return networks.unet(x, time, encoder_hidden_states=states, added_cond_kwargs=added).sample

    model = k_diffusion("external").DiscreteEpsDDPMDenoiser(unet, alphas, quantize=False)

    def guided(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        evaluation = next(evaluations)
        conditions = said(evaluation)
        not_wanted = negative(evaluation) if negative else wanted.negative_prompt
        texts = [told(chunks, networks, wanted.clip_skip, wanted.emphasis) for _, chunks in conditions]
        states = lengthened([one for one, _ in texts])
        without, pooled = told(plain(not_wanted), networks, wanted.clip_skip)
        uncond = model(x, sigma, states=without, pooled=pooled)
        conds = [model(x, sigma, states=one, pooled=other) for one, (_, other) in zip(states, texts)]
        weighted = (weight * (cond - uncond) for (weight, _), cond in zip(conditions, conds, strict=True))
        return uncond + wanted.cfg_scale * sum(weighted)

    sigmas = model.get_sigmas(wanted.steps)
    generator = torch.Generator().manual_seed(wanted.seed)
    x = torch.randn((1, 4, height // 8, width // 8), generator=generator) * sigmas[0]
    return decoded(k_diffusion("sampling").sample_euler(guided, x, sigmas, disable=True), networks)


@pytest.mark.parity
@pytest.mark.parametrize(("name", "clip_skip"), zip(CASES, cycle((1, 3))))
def test_equals_the_plain_loop(name: str, clip_skip: int, sdxl: Networks) -> None:
    prompt, said = CASES[name]
    wanted = replace(BASE, prompt=prompt, clip_skip=clip_skip)
    assert apart(render([wanted], Counting(sdxl))[0], loop(wanted, said, sdxl)) <= LEVELS


@pytest.mark.parity
def test_weights_are_measured_against_the_empty_text_of_the_same_encoder(sdxl: Networks) -> None:
    wanted = replace(BASE, prompt="a (ginger:1.6) cat", emphasis="comfyui")
    said = always((1, [[("a ", 1), ("ginger", 1.6), (" cat", 1)]]))
    ours, others = render([wanted, replace(wanted, emphasis="original")], Counting(sdxl))
    assert apart(ours, loop(wanted, said, sdxl)) <= LEVELS < apart(ours, others)


@pytest.mark.parity
@pytest.mark.parametrize("text", ["[:a hat:2]", "[a hat::2]"])
def test_a_negative_prompt_that_is_empty_for_a_while_only_is_encoded(text: str, sdxl: Networks) -> None:
    wanted, first = replace(BASE, negative_prompt=text), "" if text.startswith("[:") else "a hat"
    others = {"": "a hat", "a hat": ""}
    expected = loop(
        wanted, always((1, plain(wanted.prompt))), sdxl, lambda step: first if step <= 2 else others[first]
    )
    assert apart(render([wanted], Counting(sdxl))[0], expected) <= LEVELS


@pytest.mark.parity
@pytest.mark.parametrize("clip_skip", [1, 2, 3, 4])
@torch.inference_mode()
def test_clip_skip_counts_from_the_layer_that_it_was_trained_with(
    clip_skip: int, sdxl: Networks, pipeline: StableDiffusionXLPipeline
) -> None:
    """The last but one, which diffusers calls None; A1111 knows no other."""
    runner = Runner(lambda *_: sdxl, CPU)
    [model] = runner.run([Open(weights := Weights("m"))])
    assert model.text_layers == 3
    [chunk] = model.tokenizer.chunks(weighted("a ginger cat"))
    filled = [one.filled(chunk) for one in (model.tokenizer, model.tokenizer_2)]
    assert filled[0][:5] == filled[1][:5] and filled[0] != filled[1]
    [(states, pooled)] = runner.run([EncodeText(weights, filled[0], clip_skip, filled[1])])
    theirs, _, whole, _ = pipeline.encode_prompt(
        "a ginger cat", do_classifier_free_guidance=False, clip_skip=max(0, clip_skip - 2) or None
    )
    torch.testing.assert_close(torch.cat(states, dim=-1), theirs[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, whole[0], rtol=0, atol=1e-5)


# Batches and shares


SWEEP = [
    replace(base, prompt=prompt, steps=steps, cfg_scale=scale, width=width)
    for (prompt, width), (base, steps), scale in product(
        (("a cat", 64), ("a (cat:1.3)", 64), ("a cat AND a hat :0.5", 64), ("a [cat:hat:2]", 72)),
        ((BASE, 4), (replace(BASE, sampler="Heun"), 3), (THEIRS, 5)),
        (1.0, 5.0),
    )
]


def test_a_sweep_is_its_cells_and_is_computed_as_planned(sdxl: Networks) -> None:
    together = render(SWEEP, runner := Counting(sdxl))
    alone = [render([one], Counting(sdxl))[0] for one in SWEEP]
    assert max(map(apart, together, alone)) <= LEVELS
    assert len({one.tobytes() for one in alone}) == len(SWEEP)
    plan = Plan("p", (), Layout(), tuple(Cell(n, (), one) for n, one in enumerate(SWEEP)))
    assert runner.rows("Predict") == plan.rows() < plan.unshared_rows()
    assert runner.rows("EncodeText") == plan.text_encodings()


def test_rows_are_told_their_own_sizes(sdxl: Networks) -> None:
    """Of as many pixels, and of the same noise: batches differ in them alone."""
    wide = replace(BASE, width=128, height=64)
    rendered = render([wide, replace(wide, width=64, height=128)], Counting(sdxl))
    assert apart(rendered[0], loop(wide, always((1, plain(wide.prompt))), sdxl)) <= LEVELS
    tall = replace(wide, width=64, height=128)
    assert apart(rendered[1], loop(tall, always((1, plain(tall.prompt))), sdxl)) <= LEVELS


def test_beside_another_checkpoint(sdxl_folder: Path, tiny_model: Path) -> None:
    folders = {"xl": sdxl_folder, "cats": tiny_model}
    cells = [replace(BASE, model=model, seed=seed) for seed in (1, 2) for model in folders]

    def rendered(some: list[Settings]) -> list[np.ndarray]:
        renderer, found = Renderer(folders, "cpu"), {}
        for number, one in enumerate(some):
            renderer.submit(Cell(number, (), one))
        while not renderer.idle:
            for done in renderer.step():
                assert done.image is not None, done.error
                found[done.cell.number] = np.asarray(done.image)
        renderer.close()
        return [found[number] for number in range(len(some))]

    alone = [rendered([one])[0] for one in cells]
    assert max(map(apart, rendered(cells), alone)) <= LEVELS


class OfVae(Counting):
    """Remembers which calls of the VAE are to be precise."""

    def run(self, requests: list[Request]) -> list[Any]:
        self.precise = getattr(self, "precise", set())
        self.precise |= {one.precise for one in requests if isinstance(one, Decode | EncodeImage)}
        return super().run(requests)


@pytest.mark.parametrize(
    ("folder", "precision", "precise"),
    [
        ("sdxl_folder", "fp16", True),
        ("sdxl_folder", "bf16", False),
        ("sdxl_folder", "fp32", False),
        ("tiny_model", "fp16", False),
    ],
)
def test_at_half_precision_the_vae_works_in_fp32_where_it_says_so(
    folder: str, precision: str, precise: bool, request: pytest.FixtureRequest
) -> None:
    """That of Stable Diffusion 1.5 says so too, and is not asked, as in diffusers."""
    key, file = cat_file(64, 64)
    networks = load_checkpoint(request.getfixturevalue(folder), CPU, PRECISIONS[precision])
    assert networks.vae.config.force_upcast
    wanted = replace(BASE, steps=2, precision=precision)
    render([wanted, replace(wanted, init_image=key)], runner := OfVae(networks), pictures={key: file})
    assert runner.precise == {precise} and runner.rows("EncodeImage") == 1
