"""Embeddings in prompts: against diffusers with the same vectors, and what they change of what is shared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from farm.cell import Settings
from farm.errors import CellFailed
from farm.prompts.emphasis import weighted
from farm.prompts.vectors import Vector
from farm.render.capacity import Capacity
from farm.render.engine import Engine, Finished
from farm.render.recipes import text_to_image
from farm.render.requests import EncodeText, Open, Weights
from farm.render.runner import Runner
from farm.render.told import Encoded
from farm.weights.checkpoint import Networks
from farm.weights.embedding import Embedding, read_embedding
from tests.render.plain_encoding import Chunks, encoded
from tests.render.rendering import LEVELS, Counting, apart, render

BASE = Settings(
    "m", "", "blurry", "diffusers:DPMSolverMultistepScheduler", 6, 5.0, 3, 64, 64, schedule="automatic"
)
M = Weights("m")


def vectors(count: int, seed: int, width: int = 128) -> torch.Tensor:
    """About as long as those of tokens."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 0.2


VECTORS = {"ink-style": vectors(1, 0), "bad-hands-5": vectors(3, 1), "bad": vectors(2, 2)}
KNOWN = {
    name: read_embedding({"string_to_param": {"*": found}}, name, f"sha of {name}")
    for name, found in VECTORS.items()
}


@pytest.fixture(scope="module")
def taught(tiny_model: Any) -> StableDiffusionPipeline:
    """diffusers' pipeline with the same embeddings."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    for name, found in VECTORS.items():
        file = {"string_to_token": {"*": 265}, "string_to_param": {"*": found}, "name": "any"}
        pipeline.load_textual_inversion(file, token=name)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def theirs(wanted: Settings, pipeline: StableDiffusionPipeline, **prompts: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(wanted.seed)
    picture = pipeline(
        guidance_scale=wanted.cfg_scale, num_inference_steps=wanted.steps, width=64, height=64,
        latents=torch.randn((1, 4, 8, 8), generator=generator), **prompts,
    ).images[0]  # fmt: skip
    return np.asarray(picture)


def ours(wanted: Settings, networks: Networks) -> np.ndarray:
    return render([wanted], Counting(networks), embeddings=KNOWN)[0]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("ink-style", "blurry"),
        ("a cat, ink-style, a hat", "blurry"),
        ("a cat bad-hands-5 a hat", "blurry"),
        ("a cat", "bad-hands-5"),
        ("ink-style cat bad ink-style", "blurry, bad-hands-5, ink-style"),
    ],
)
@torch.inference_mode()
def test_pictures_equal_those_of_diffusers(
    prompt: str, negative: str, networks: Networks, taught: StableDiffusionPipeline
) -> None:
    wanted = replace(BASE, prompt=prompt, negative_prompt=negative)
    picture = ours(wanted, networks)
    assert apart(picture, theirs(wanted, taught, prompt=prompt, negative_prompt=negative)) <= LEVELS
    assert apart(picture, render([wanted], Counting(networks))[0]) > 10


def converted(chunks: Chunks, pipeline: StableDiffusionPipeline) -> Chunks:
    """Names of embeddings become diffusers' tokens of their vectors."""
    return [
        [(pipeline.maybe_convert_prompt(text, pipeline.tokenizer), weight) for text, weight in pieces]
        for pieces in chunks
    ]


CATS = "cat " * 73
COMMA_LATE = "cat " * 60 + ", " + "cat " * 13

FORMULAS: dict[str, tuple[str, Chunks, Chunks]] = {
    "weights": (
        "a cat, (ink-style:1.4), [bad-hands-5] (a bad:0.7) hat",
        [[("a cat,", 1), ("ink-style", 1.4), (",", 1), ("bad-hands-5", 1 / 1.1), ("a bad", 0.7), ("hat", 1)]],
        [[("blurry", 1)]],
    ),
    "over a chunk's end": (CATS + "bad-hands-5 hat", [[(CATS, 1)], [("bad-hands-5 hat", 1)]], []),
    "just within": (
        "cat " * 72 + "bad-hands-5 hat", [[("cat " * 72 + "bad-hands-5", 1)], [("hat", 1)]], []),
    "behind the last comma": (
        COMMA_LATE + "ink-style hat", [[("cat " * 60 + ",", 1)], [("cat " * 13 + "ink-style hat", 1)]], []),
    "no going back for what does not fit": (
        COMMA_LATE + "bad-hands-5", [[(COMMA_LATE, 1)], [("bad-hands-5", 1)]], []),
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("clip_skip", [1, 2])
@pytest.mark.parametrize(("prompt", "positive", "negative"), FORMULAS.values(), ids=FORMULAS)
@torch.inference_mode()
def test_pictures_equal_the_formula_over_diffusers(
    prompt: str,
    positive: Chunks,
    negative: Chunks,
    clip_skip: int,
    networks: Networks,
    taught: StableDiffusionPipeline,
) -> None:
    wanted = replace(BASE, prompt=prompt, clip_skip=clip_skip, cfg_scale=5.0 if negative else 1.0)
    texts = {"prompt_embeds": encoded(converted(positive, taught), taught, clip_skip)}
    if negative:
        texts["negative_prompt_embeds"] = encoded(converted(negative, taught), taught, clip_skip)
    else:
        texts["negative_prompt_embeds"] = torch.zeros_like(texts["prompt_embeds"])
    assert apart(ours(wanted, networks), theirs(wanted, taught, **texts)) <= LEVELS


# Names


@pytest.fixture
def runner(networks: Networks) -> Iterator[Runner]:
    lookup = networks.text_encoder.get_input_embeddings()
    before = dict(lookup._forward_hooks)
    yield Runner(lambda *_: networks, torch.device("cpu"))
    assert lookup._forward_hooks == before  # nothing is left behind


def words(text: str, runner: Runner, known: Mapping[str, Embedding] = KNOWN) -> str:
    [model] = runner.run([Open(M)])
    tokenizer = model.knowing(known).tokenizer
    [chunk] = tokenizer.chunks(weighted(text))
    return " ".join(tokenizer.words(chunk.tokens)).replace("</w>", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a bad cat", "a bad#1 bad#2 cat"),
        ("Bad CAT", "bad#1 bad#2 cat"),
        ("bad-hands-5", "bad-hands-5#1 bad-hands-5#2 bad-hands-5#3"),  # the longest that stands there
        ("bad-hands-4", "bad#1 bad#2 - h an d s - 4"),
        ("cat,bad", "cat , bad#1 bad#2"),
        ("baden", "ba de n"),  # a longer word that begins so
        ("bad-hands-55", "bad-hands-5#1 bad-hands-5#2 bad-hands-5#3 5"),  # to CLIP each digit ends a word
        ("(bad)-hands-5", "bad#1 bad#2 - h an d s - 5"),
        ("bad bad", "bad#1 bad#2 bad#1 bad#2"),
    ],
)
def test_names_are_told_by_their_tokens(text: str, found: str, runner: Runner) -> None:
    assert words(text, runner) == found


def test_a_name_is_found_at_the_end_of_a_word_that_is_cut_there(runner: Runner) -> None:
    """As in A1111, for which tokens are all there is."""
    assert words("ginger", runner, {}) == "ginger"
    assert words("xcat", runner, {}) == "x cat"
    assert words("xcat", runner, {"cat": KNOWN["bad"]}) == "x bad#1 bad#2"


def test_names_are_tokenized_once_for_all_cells_that_know_the_same(runner: Runner) -> None:
    [model] = runner.run([Open(M)])
    other = {"ink-style": read_embedding({"x": vectors(1, 9)}, "ink-style", "another sha")}
    assert model.knowing(KNOWN).tokenizer is model.knowing(dict(KNOWN)).tokenizer
    known = {name: found for name, found in KNOWN.items() if name == "ink-style"}
    assert model.knowing(known).tokenizer is not model.knowing(other).tokenizer
    assert model.knowing({}) is model


# What is shared


def requests(text: str, runner: Runner, known: Mapping[str, Embedding]) -> list[EncodeText]:
    [model] = runner.run([Open(M)])
    tokenizer = model.knowing(known).tokenizer
    return [
        EncodeText(M, tokenizer.filled(chunk), 1, embeddings=tokenizer.embeddings_of(chunk))
        for chunk in tokenizer.chunks(weighted(text))
    ]


TEXTS = ["a cat", "a cat, ink-style", "", "bad-hands-5 bad", "a hat " * 90]


def states_of(answers: Sequence[Encoded]) -> list[torch.Tensor]:
    """Of the one text encoder."""
    return [states for answer in answers for states in answer.states]


@torch.inference_mode()
def test_a_batch_mixes_texts_with_and_without_embeddings(runner: Runner) -> None:
    rows = [request for text in TEXTS for request in requests(text, runner, KNOWN)]
    plain = [request for text in TEXTS for request in requests(text, runner, {})]
    together, alone = states_of(runner.run(rows)), states_of([runner.run([row])[0] for row in rows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    for row, without, states, others in zip(rows, plain, together, states_of(runner.run(plain)), strict=True):
        assert (row.tokens == without.tokens) == torch.equal(states, others)
        assert bool(row.embeddings) == any(isinstance(token, Vector) for token in row.tokens)
    assert {key for row in rows for key in row.embeddings} == {f"sha of {name}" for name in VECTORS}


def test_prompts_without_names_are_rendered_as_if_there_were_no_embeddings(networks: Networks) -> None:
    cells = [
        replace(BASE, prompt=text, seed=seed) for text in ("a cat", "a (cat:1.3) hat") for seed in (1, 2)
    ]
    with_them, without = Counting(networks), Counting(networks)
    for one, other in zip(render(cells, with_them, embeddings=KNOWN), render(cells, without), strict=True):
        assert np.array_equal(one, other)
    assert with_them.calls == without.calls


def test_only_texts_that_name_an_embedding_are_encoded_anew(networks: Networks) -> None:
    prompts = ["a cat", "a hat", "a cat ink-style", "a cat (ink-style:1.2)", "a cat bad"]
    cells = [replace(BASE, prompt=prompt, steps=1, negative_prompt="") for prompt in prompts]
    render(cells, runner := Counting(networks), embeddings=KNOWN)
    assert runner.rows("EncodeText") == 5  # of the weight nothing is seen there, and the negative is one


def together(networks: Networks, *cells: tuple[Settings, Mapping[str, Embedding]]) -> list[Finished]:
    """What becomes of cells in one engine, each with embeddings of its own."""
    engine = Engine(Counting(networks), Capacity(torch.device("cpu"), None))
    for number, (wanted, known) in enumerate(cells):
        engine.submit(number, text_to_image(wanted, embeddings=known))
    found: dict[Any, Finished] = {}
    while engine.in_flight:
        found |= {finished.name: finished for finished in engine.step()}
    return [found[number] for number in range(len(cells))]


def test_embeddings_of_one_name_and_another_content_are_another_text(networks: Networks) -> None:
    """Cells of two jobs, whose files differ, in one engine."""
    other = {"ink-style": read_embedding({"x": vectors(1, 9)}, "ink-style", "another sha")}
    wanted = replace(BASE, prompt="ink-style")
    [first] = render([wanted], Counting(networks), embeddings=KNOWN)
    [second] = render([wanted], Counting(networks), embeddings=other)
    assert apart(first, second) > 10
    found = together(networks, (wanted, KNOWN), (wanted, other))
    for one, picture in zip(found, (first, second), strict=True):
        assert apart(one.result.pixels.numpy(), picture) <= LEVELS


# What cannot be


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"x": vectors(1, 0, 768)},
            "the embedding 'ink-style' is of another family: its vectors have 768 channels, "
            "the checkpoint's text encoder takes 128",
        ),
        (
            {"clip_g": vectors(1, 0)},
            "the embedding 'ink-style' has vectors for clip_g, none for clip_l",
        ),
        (
            {"x": vectors(76, 0)},
            "the embedding 'ink-style' has 76 vectors: the text encoder takes 75 at once",
        ),
    ],
)
def test_an_embedding_that_does_not_fit_fails_the_cells_that_name_it(
    tree: dict[str, torch.Tensor], message: str, networks: Networks
) -> None:
    known = {"ink-style": read_embedding(tree, "ink-style", "k")}
    prompts = ("a cat", "ink-style", "a hat")
    one, failed, other = together(networks, *((replace(BASE, prompt=prompt), known) for prompt in prompts))
    assert isinstance(failed.error, CellFailed) and str(failed.error) == message
    assert one.error is None and other.error is None
