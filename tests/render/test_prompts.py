"""The prompt language in pictures: against plain loops, and against diffusers with compel's embeddings."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count, cycle

import numpy as np
import pytest
import torch
from compel import Compel, SplitLongTextMode
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel

from farm.cell import Settings
from farm.prompts.emphasis import weighted
from farm.render.requests import EncodeText, Open, Weights
from farm.render.runner import Runner
from farm.weights.checkpoint import Networks
from tests.render.on_the_model import decoded
from tests.render.oracles import k_diffusion
from tests.render.plain_encoding import Chunks, encoded
from tests.render.rendering import LEVELS, Counting, apart, render

BASE = Settings("m", "", "blurry", "Euler", 6, 5.0, 3, 64, 64, schedule="uniform")
EMPTY = [[("", 1.0)]]

Said = Callable[[int], list[tuple[float, Chunks]]]
"""For an evaluation of the model, counted from 0: the weight and the text of each condition."""


def always(*conditions: tuple[float, Chunks]) -> Said:
    return lambda evaluation: list(conditions)


def plain(text: str) -> Chunks:
    return [[(text, 1.0)]]


PHRASE = "a red cat with a hat"
LONG = ", ".join([PHRASE] * 29)
"""203 tokens: of each 75, the last 5 stand behind the last comma."""

CASES: dict[str, tuple[str, Said]] = {
    "editing": (
        "a [ginger:black:0.5] cat",
        lambda step: [(1, plain("a ginger cat" if step <= 3 else "a black cat"))],
    ),
    "editing, a step": (
        "a cat[ with a hat:2]",
        lambda step: [(1, plain("a cat" + " with a hat" * (step > 2)))],
    ),
    "editing, taken away": ("a [red:: 1 ]cat", lambda step: [(1, plain("a " + "red" * (step <= 1) + "cat"))]),
    "editing, nested": (
        "a [red:[blue:black:4]:2] cat",
        lambda step: [(1, plain("a red cat" if step <= 2 else "a blue cat" if step <= 4 else "a black cat"))],
    ),
    "editing, a longer text": (
        "a cat[ BREAK a hat:3]",
        lambda step: [(1, [*plain("a cat"), *(EMPTY if step <= 3 else plain("a hat"))])],
    ),
    "alternation": (
        "a [ginger|black|] cat",
        lambda step: [(1, plain(["a ginger cat", "a black cat", "a  cat"][max(step - 1, 0) % 3]))],
    ),
    "a weight that alternates": (
        "a (cat:[1.4|0.6])",
        lambda step: [(1, [[("a ", 1), ("cat", [1.4, 0.6][max(step - 1, 0) % 2])]])],
    ),
    "AND": (
        "a ginger cat AND a blue background :0.7 AND a hat :-0.3",
        always((1, plain("a ginger cat")), (0.7, plain("a blue background")), (-0.3, plain("a hat"))),
    ),
    "AND with editing": (
        "a [red:black:2] cat AND [a hat|a scarf] :0.5",
        lambda step: [
            (1, plain("a red cat" if step <= 2 else "a black cat")),
            (0.5, plain(["a hat", "a scarf"][max(step - 1, 0) % 2])),
        ],
    ),
    "AND of other lengths": (
        "a cat AND a hat BREAK a scarf BREAK a blue background :0.6",
        always((1, plain("a cat")), (0.6, [*plain("a hat"), *plain("a scarf"), *plain("a blue background")])),
    ),
    "BREAK": ("a cat BREAK a blue background", always((1, [*plain("a cat"), *plain("a blue background")]))),
    "weights": (
        "a (ginger:1.4) cat, [a hat], ((green) eyes)",
        always((1, [[("a ", 1), ("ginger", 1.4), (" cat, ", 1), ("a hat", 1 / 1.1), (", ", 1),
                     ("green", 1.21), (" eyes", 1.1)]])),
    ),
    "a long prompt": (
        LONG,
        always((1, [*(plain(f"{PHRASE}, " * 10) * 2), *plain(", ".join([PHRASE] * 9))])),
    ),
}  # fmt: skip


def lengthened(conds: list[torch.Tensor]) -> list[torch.Tensor]:
    """All as long as the longest, their last states repeated."""
    longest = max(cond.shape[1] for cond in conds)
    return [torch.cat([cond, cond[:, -1:].expand(-1, longest - cond.shape[1], -1)], dim=1) for cond in conds]


@torch.inference_mode()
def loop(wanted: Settings, said: Said, networks: Networks) -> np.ndarray:
    """k-diffusion's sampler over composable guidance, one row at a time."""
    alphas = DDPMScheduler.from_config(networks.scheduler_config).alphas_cumprod
    evaluations = count()
    asked = wanted.steps if wanted.sampler == "Euler" else 2 * wanted.steps - 1

    def unet(x: torch.Tensor, time: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return networks.unet(x, time, encoder_hidden_states=states).sample

    model = k_diffusion("external").DiscreteEpsDDPMDenoiser(unet, alphas, quantize=False)

    def guided(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        evaluation = next(evaluations)
        weights = [weight for weight, _ in said(evaluation)]
        texts = [encoded(chunks, networks, wanted.clip_skip) for _, chunks in said(evaluation)]
        conds = [(x - model(x, sigma, states=states)) / sigma for states in lengthened(texts)]
        first = conds[0]
        alone = first + sum(weight * (cond - first) for weight, cond in zip(weights, conds, strict=True))
        left_out = evaluation % 2 and sigma < wanted.negative_guidance_minimum_sigma
        if left_out or evaluation >= int(wanted.guidance_stop * asked):
            return x - sigma * alone
        negative = encoded(plain(wanted.negative_prompt), networks, wanted.clip_skip)
        uncond = (x - model(x, sigma, states=negative)) / sigma
        noise = uncond + sum(
            wanted.cfg_scale * weight * (cond - uncond) for weight, cond in zip(weights, conds, strict=True)
        )
        if wanted.guidance_rescale:
            scaled = noise * alone.std() / noise.std()
            noise = wanted.guidance_rescale * scaled + (1 - wanted.guidance_rescale) * noise
        return x - sigma * noise

    sigmas = model.get_sigmas(wanted.steps)
    generator = torch.Generator().manual_seed(wanted.seed)
    x = torch.randn((1, 4, wanted.height // 8, wanted.width // 8), generator=generator) * sigmas[0]
    sample = getattr(k_diffusion("sampling"), f"sample_{wanted.sampler.lower()}")
    return decoded(sample(guided, x, sigmas, disable=True), networks)


@pytest.mark.parity
@pytest.mark.parametrize(("name", "clip_skip"), zip(CASES, cycle((1, 2))))
def test_equals_the_plain_loop(name: str, clip_skip: int, networks: Networks) -> None:
    prompt, said = CASES[name]
    wanted = replace(BASE, prompt=prompt, clip_skip=clip_skip)
    assert apart(render([wanted], Counting(networks))[0], loop(wanted, said, networks)) <= LEVELS


LENGTHS = (*[6] * 10, 4, 5, 7)
"""Steps: six where it matters when something changes."""


@pytest.mark.slow
@pytest.mark.parity
def test_all_of_it_in_one_batch_equals_the_plain_loops(networks: Networks) -> None:
    """Texts of other lengths, rows of other numbers, other steps and scales, side by side."""
    cells = [
        (replace(BASE, prompt=prompt, steps=steps, cfg_scale=scale, seed=steps), said)
        for (prompt, said), steps, scale in zip(CASES.values(), LENGTHS, (1, 4, 7) * 5)
    ]
    pictures = render([wanted for wanted, _ in cells], Counting(networks))
    for (wanted, said), picture in zip(cells, pictures, strict=True):
        assert apart(picture, loop(wanted, said, networks)) <= LEVELS, wanted.prompt


ANDS = "a ginger cat :0.8 AND a blue background :0.7 AND a hat :-0.3"
PARTS = [(0.8, plain("a ginger cat")), (0.7, plain("a blue background")), (-0.3, plain("a hat"))]


@pytest.mark.parity
@pytest.mark.parametrize(
    "options",
    [
        {"negative_guidance_minimum_sigma": 15.0},
        {"guidance_rescale": 0.7},
        {"guidance_stop": 0.5},
        {"guidance_stop": 0.0},
        {"guidance_stop": 0.75, "guidance_rescale": 0.7, "negative_guidance_minimum_sigma": 9.0},
        {"guidance_stop": 0.5, "cfg_scale": 1.0},
        {"cfg_scale": 1.0},
        {"cfg_scale": 1.0, "guidance_rescale": 0.7},
        {"cfg_scale": 0.0},
    ],
    ids=str,
)
@pytest.mark.slow
def test_guidance_of_several_parts_equals_the_plain_loop(
    options: dict[str, float], networks: Networks
) -> None:
    wanted = replace(BASE, prompt=ANDS, **options)
    assert apart(render([wanted], Counting(networks))[0], loop(wanted, always(*PARTS), networks)) <= LEVELS


@pytest.mark.parity
def test_a_first_part_of_weight_0_leaves_its_place_to_the_next(networks: Networks) -> None:
    wanted = replace(BASE, prompt="a cat :0 AND a hat :0.5", negative_guidance_minimum_sigma=15.0)
    picture = render([wanted], Counting(networks))[0]
    assert apart(picture, loop(wanted, always((0.5, plain("a hat"))), networks)) <= LEVELS


@pytest.mark.parity
@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (
            "a [ginger:black:0.5] cat",
            lambda step: [(1, plain("a ginger cat" if step <= 6 else "a black cat"))],
        ),
        ("a [ginger:black:3] cat", lambda step: [(1, plain("a ginger cat" if step <= 3 else "a black cat"))]),
    ],
)
def test_samplers_that_ask_twice_have_twice_the_steps(prompt: str, said: Said, networks: Networks) -> None:
    wanted = replace(BASE, prompt=prompt, sampler="Heun")
    assert apart(render([wanted], Counting(networks))[0], loop(wanted, said, networks)) <= LEVELS


@pytest.mark.parity
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
@pytest.mark.parametrize("stop", [0.0, 0.3, 0.5, 0.99])
@pytest.mark.slow
def test_guidance_that_stops_equals_the_plain_loop(stop: float, sampler: str, networks: Networks) -> None:
    """While the prompt changes, and beside a picture whose guidance goes on."""
    prompt, said = CASES["editing"]
    said = said if sampler == "Euler" else always_twice(said)
    cells = [
        replace(BASE, prompt=prompt, sampler=sampler, guidance_stop=one, negative_prompt="hat")
        for one in (stop, 1.0)
    ]
    stopped, others = render(cells, Counting(networks))
    assert apart(stopped, loop(cells[0], said, networks)) <= LEVELS
    assert apart(others, loop(cells[1], said, networks)) <= LEVELS
    assert apart(stopped, others) > LEVELS


def always_twice(said: Said) -> Said:
    """Of a sampler that asks twice a step: what ends after step 3 of 6 there ends after step 6 of 12."""
    return lambda evaluation: said(evaluation // 2 if evaluation <= 6 else 6)


def test_rules_of_emphasis_do_what_they_say(networks: Networks) -> None:
    rules = {
        rule: replace(BASE, prompt="a (ginger:1.5) cat [on] a (blue background:0.5)", emphasis=rule, steps=4)
        for rule in ("original", "no norm", "comfyui", "ignore")
    }
    unweighted = replace(BASE, prompt="a ginger cat on a blue background", steps=4)
    *pictures, without = render([*rules.values(), unweighted], Counting(networks))
    alone = [render([wanted], Counting(networks))[0] for wanted in rules.values()]
    assert all(apart(one, other) <= LEVELS for one, other in zip(pictures, alone, strict=True))
    original, no_norm, comfyui, ignored = pictures
    assert apart(ignored, without) == 0
    assert min(apart(original, no_norm), apart(original, comfyui), apart(no_norm, comfyui)) > 0
    assert min(apart(one, without) for one in (original, no_norm, comfyui)) > LEVELS


@pytest.mark.slow
def test_cells_of_all_kinds_side_by_side_share_only_what_is_equal(networks: Networks) -> None:
    """Other clip skips, rules and lengths of one text: a first row taken from another would show."""
    cells = [
        replace(BASE, prompt=prompt, clip_skip=clip_skip, emphasis=emphasis, steps=3)
        for prompt in (
            "a (cat:1.4)",
            "a (cat:1.4)[ BREAK a hat:2]",
            "a (cat:1.4) AND a hat BREAK a scarf :0.001",
        )
        for clip_skip in (1, 2)
        for emphasis in ("original", "no norm")
    ]
    together = render(cells, Counting(networks))
    alone = [render([cell], Counting(networks))[0] for cell in cells]
    assert max(apart(one, other) for one, other in zip(together, alone, strict=True)) <= LEVELS


def test_different_prompts_are_different_pictures(networks: Networks) -> None:
    """Else equality with the loops would say nothing."""
    pictures = render([replace(BASE, prompt=prompt) for prompt, _ in CASES.values()], Counting(networks))
    assert all(apart(one, other) > 3 * LEVELS for i, one in enumerate(pictures) for other in pictures[:i])


def test_negative_prompts_change_as_well(networks: Networks) -> None:
    wanted = replace(BASE, prompt="a cat", negative_prompt="[hat:scarf:2]")
    [picture, same, first, second] = render(
        [wanted, *(replace(wanted, negative_prompt=text) for text in ("[hat:scarf: 2]", "hat", "scarf"))],
        Counting(networks),
    )
    assert apart(picture, same) == 0 and apart(picture, first) > LEVELS and apart(picture, second) > LEVELS


# compel


def embeddings(text: str, pipeline: StableDiffusionPipeline) -> torch.Tensor:
    """What compel makes of its own syntax, every 75 tokens a chunk."""
    compel = Compel(
        pipeline.tokenizer,
        pipeline.text_encoder,
        truncate_long_prompts=False,
        split_long_text_mode=SplitLongTextMode.BRUTAL,
    )
    return compel(text)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("prompt", "in_compel"),
    [
        ("a ginger cat", "a ginger cat"),
        ("a (ginger:1.3) cat, (green eyes:1.1)", "a (ginger)1.3 cat, (green eyes)1.1"),
        ("a (ginger cat with a (hat:1.2):1.5)", "a (ginger cat with a (hat)1.2)1.5"),
        ("red cat " * 40 + "(blue background:1.4)", "red cat " * 40 + "(blue background)1.4"),
        (" ".join(["a red cat with a hat"] * 34), " ".join(["a red cat with a hat"] * 34)),
    ],
)
@torch.inference_mode()
def test_equals_diffusers_with_the_embeddings_of_compel(
    prompt: str, in_compel: str, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    wanted = replace(
        BASE, prompt=prompt, sampler="diffusers:DPMSolverMultistepScheduler", schedule="automatic",
        emphasis="comfyui",
    )  # fmt: skip
    positive = embeddings(in_compel, pipeline)
    negative = embeddings(" ".join([wanted.negative_prompt]), pipeline)
    generator = torch.Generator().manual_seed(wanted.seed)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(networks.scheduler_config)
    sizes = len(positive[0]), len(negative[0])
    if sizes[0] != sizes[1]:  # the pipeline takes equal lengths only
        wanted, negative = replace(wanted, cfg_scale=1.0), negative.new_zeros(positive.shape)
    theirs = pipeline(
        prompt_embeds=positive, negative_prompt_embeds=negative, guidance_scale=wanted.cfg_scale,
        num_inference_steps=wanted.steps, width=wanted.width, height=wanted.height,
        latents=torch.randn((1, 4, 8, 8), generator=generator),
    ).images[0]  # fmt: skip
    assert apart(render([wanted], Counting(networks))[0], np.asarray(theirs)) <= LEVELS


# What is encoded


def encodings(networks: Networks, *cells: Settings) -> int:
    """Chunks that went through the text encoder."""
    render(cells, runner := Counting(networks))
    return runner.rows("EncodeText")


QUICK = replace(BASE, steps=1, negative_prompt="")


@pytest.mark.parametrize(
    ("prompts", "chunks"),
    [
        (["a cat"] * 50, 1),
        (["[a cat|a hat]"], 2),
        (["a [cat|hat]", "a hat", "a cat", "[a cat:a hat:0.5]"], 2),
        ([f"a (cat:{weight / 10})" for weight in range(1, 20)], 1),  # weights act on what was encoded
        (["a cat BREAK a hat", "a hat BREAK a cat", "a hat"], 2),
        (["a cat AND a hat", "a hat AND a cat :0.5"], 3),  # and the empty negative prompt
        ([LONG, f"{LONG}, blue"], 3),  # two chunks that are alike, and two endings
        (["a cat[ BREAK a hat:3]"], 3),
        (["[a cat:a hat:5]", "[a cat|a hat|a bow|a scarf|a crown|a face]"], 5),  # not what never comes
    ],
)  # fmt: skip
@pytest.mark.slow
def test_every_chunk_is_encoded_once(prompts: list[str], chunks: int, networks: Networks) -> None:
    cells = [replace(QUICK, prompt=prompt, cfg_scale=1.0, steps=6) for prompt in prompts]
    assert encodings(networks, *cells) == chunks


def test_texts_of_no_coefficient_are_not_encoded(networks: Networks) -> None:
    wanted = replace(QUICK, prompt="a cat AND a hat :0", negative_prompt="blurry")
    assert encodings(networks, wanted) == 2
    assert encodings(networks, replace(wanted, cfg_scale=1.0)) == 1
    assert encodings(networks, replace(wanted, cfg_scale=0.0)) == 1


def test_rows_of_other_lengths_go_in_batches_of_their_own(networks: Networks) -> None:
    short, long = replace(BASE, prompt="a cat", cfg_scale=1.0), replace(BASE, prompt=LONG, cfg_scale=1.0)
    runner = Counting(networks)
    render([replace(wanted, seed=seed) for seed in range(4) for wanted in (short, long)], runner)
    assert [count for kind, count in runner.calls if kind == "Predict"] == [4, 4] * BASE.steps


@pytest.mark.parity
@pytest.mark.parametrize("clip_skip", range(1, 13))
@torch.inference_mode()
def test_clip_skip_takes_the_layer_that_diffusers_takes(
    clip_skip: int, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    """With a text encoder of 12 layers, as CLIP ViT-L/14 has."""
    config = networks.text_encoder.config.to_dict() | {"num_hidden_layers": 12}
    torch.manual_seed(0)
    encoder = CLIPTextModel(CLIPTextConfig(**config)).eval()
    deep = replace(networks, text_encoder=encoder)
    [model] = Runner(lambda *_: deep, torch.device("cpu")).run([Open(weights := Weights("m"))])
    [chunk] = model.tokenizer.chunks(weighted("a ginger cat"))
    request = EncodeText(weights, model.tokenizer.filled(chunk), clip_skip)
    [([states], _)] = Runner(lambda *_: deep, torch.device("cpu")).run([request])
    hidden = encoder(torch.tensor([request.tokens]), output_hidden_states=True).hidden_states
    theirs = encoder.final_layer_norm(hidden[-clip_skip])[0]
    torch.testing.assert_close(states, theirs)
    assert len({id(layer) for layer in hidden}) == 13
