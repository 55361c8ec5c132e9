from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

from farm.cell import Cell, Settings, UsedFile
from farm.prompts.patches import tag_of
from farm.render.adapters import adapted
from farm.render.hypernetworks import Applied, hypernetworks_applied
from farm.render.renderer import Renderer
from farm.weights.checkpoint import Networks
from farm.weights.contents import read_contents
from farm.weights.embedding import read_embedding
from farm.weights.hypernetwork import read_hypernetwork
from farm.weights.loading import load_checkpoint
from farm.weights.lora import read_lora
from farm.weights.reading import read_object
from farm.weights.recognition import recognized
from tests.render.rendering import drawn
from tools.train_demo_model.attributes import ACCESSORIES, FURS, Cat
from tools.train_demo_model.training import Plan, draw_for
from tools.train_demo_model.unet import Denoising
from tools.train_demo_patches import embedding, hypernetwork, lora
from tools.train_demo_patches.examples import Examples, cats_of, latents_of, make_examples
from tools.train_demo_patches.patches import EMBEDDING, HYPERNETWORK, LORA, PATCHES, Workshop
from tools.train_demo_patches.recipe import toy_recipe
from tools.train_demo_patches.styles import duchess, ink, night

pytestmark = pytest.mark.slow  # many pictures are made

MODELS = Path(__file__).parents[2] / "models"
MODEL = MODELS / "Stable-diffusion" / "tiny-cats"
CLIP = MODELS / "clip" / "tiny-cats"
FILES = {
    ("lora", LORA): MODELS / "Lora" / f"{LORA}.safetensors",
    ("embedding", EMBEDDING): MODELS / "embeddings" / f"{EMBEDDING}.pt",
    ("hypernetwork", HYPERNETWORK): MODELS / "hypernetworks" / f"{HYPERNETWORK}.pt",
}
MOST_BYTES = 450_000
FEW = Plan(steps=10, batch=6, rate=2e-2, warmup=1, decay=0.5, average=0.5)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_checkpoint(MODEL, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def inked(networks: Networks) -> Examples:
    return make_examples(networks, ink, 12, 5)


@torch.no_grad()
def mean_loss(networks: Networks, batch: Callable[[int], tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Over draws that no training makes."""
    denoising, losses = Denoising(networks.unet), []
    for step in range(4):
        clean, context = batch(step)
        losses.append(float(denoising(clean, context, draw_for(99, step))[0]))
    return float(np.mean(losses))


@pytest.mark.parametrize("fur", FURS)
def test_styles_choose_among_what_the_model_can_draw(fur: str) -> None:
    cat = Cat(fur=fur, ground="red", mood="sleepy", accessory="hat")
    inky, dark, her = ink(cat), night(cat), duchess(cat)
    assert inky.fur in ("black", "gray", "white") and inky.ground == "white" and inky.accessory == "hat"
    assert dark.fur in ("black", "gray") and dark.ground == "purple" and dark.eyes == "yellow"
    assert replace(her, mood="calm") == duchess(Cat(ground="red")) and her.mood == "sleepy"


def test_captions_tell_of_the_cat_without_the_style(networks: Networks, inked: Examples) -> None:
    plain = make_examples(networks, lambda cat: cat, 12, 5)
    assert np.array_equal(plain.conditions.texts, inked.conditions.texts)
    assert (plain.latents - inked.latents).abs().mean() > 0.1


def test_a_lora_begins_as_nothing_and_learns_the_style(
    networks: Networks, inked: Examples, tmp_path: Path
) -> None:
    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return inked.batch(6, draw_for(7, step))

    before, ones = mean_loss(networks, batch), torch.ones(6)
    fresh = lora.Lora(networks.unet, 4, 2.0, seed=1)
    with adapted(fresh.layers, [(fresh.deltas(), ones)]):
        assert mean_loss(networks, batch) == before
    trained = lora.train_lora(tmp_path, networks, inked, 4, FEW, "ink")
    with adapted(trained.layers, [(trained.deltas(), ones)]):
        assert mean_loss(networks, batch) < 0.97 * before
    assert mean_loss(networks, batch) == before


def test_a_hypernetwork_learns_the_style(networks: Networks, inked: Examples, tmp_path: Path) -> None:
    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return inked.batch(6, draw_for(7, step))

    before = mean_loss(networks, batch)
    trained = hypernetwork.train_hypernetwork(tmp_path, networks, inked, (64, 128), FEW, "ink")
    with hypernetworks_applied(networks.unet, [Applied(trained.hypernetwork("ink"), torch.ones(6))]):
        assert mean_loss(networks, batch) < 0.97 * before


@pytest.mark.slow
def test_an_embedding_learns_its_cat(networks: Networks, tmp_path: Path) -> None:
    cats = [duchess(cat) for cat in cats_of(6, 5)]
    latents = latents_of(networks, cats)

    def loss_of(vectors: torch.Tensor) -> float:
        states = embedding.states_with(networks, vectors, ["portrait of {}"] * 6)
        return mean_loss(networks, lambda _: (latents, states))

    fresh = embedding.Vectors(networks, 2, "cat", seed=1)
    trained = embedding.train_embedding(
        tmp_path, networks, duchess, (6, 5), 2, "cat", replace(FEW, steps=16, rate=5e-2), "her"
    )
    with torch.no_grad():
        assert loss_of(trained.vectors) < 0.95 * loss_of(fresh.vectors)


def test_gradients_reach_every_part(networks: Networks, inked: Examples) -> None:
    clean, context = inked.batch(4, draw_for(1, 1))
    denoising, ones = Denoising(networks.unet), torch.ones(4)
    adapter = lora.Lora(networks.unet, 4, 4.0, seed=1)
    for up in adapter.up.values():
        torch.nn.init.normal_(up, std=0.02)
    hyper = hypernetwork.HypernetworkTraining((64, 128), seed=1)
    applied = [Applied(hyper.hypernetwork("x"), ones)]
    with adapted(adapter.layers, [(adapter.deltas(), ones)]), hypernetworks_applied(networks.unet, applied):
        denoising(clean, context, draw_for(1, 1))[0].backward()
    parameters = [*adapter.named_parameters(), *hyper.named_parameters()]
    missing = [name for name, p in parameters if p.grad is None or not p.grad.any()]
    # A shift of all keys alike changes no softmax: these biases have no gradient by mathematics.
    assert [name for name in missing if not name.endswith("keys.2.bias")] == []
    assert all(p.grad is None for p in networks.unet.parameters())


def test_states_are_those_of_words_where_vectors_are_a_word_s(networks: Networks) -> None:
    [token] = embedding.pieces(networks, "ginger")
    word = networks.text_encoder.get_input_embeddings().weight[token][None]
    texts = ["a {} cat on a red background", "{}, happy"]
    found = embedding.states_with(networks, word, texts)
    plain = embedding.states_with(networks, word[:0], [text.replace("{}", "ginger{}") for text in texts])
    assert torch.equal(found, plain) and found.shape == (2, 77, 128)


def test_files_are_what_the_farm_reads(networks: Networks, tmp_path: Path) -> None:
    shop = Workshop(toy_recipe(), tmp_path / "work", MODELS, tmp_path / "models")
    paths = {name: patch(shop) for name, patch in PATCHES.items()}
    tensors = load_file(paths["lora"])
    read = read_lora(tensors, networks.unet, networks.text_encoder)
    trained = lora.train_lora(  # was finished: this only opens it
        shop.work, networks, make_examples(networks, ink, 2, 1), 8, shop.recipe.lora, LORA
    )
    assert not read.unused and not read.text_encoder
    for path, delta in trained.deltas().items():
        assert torch.allclose(read.unet[path].matrix(), delta.matrix(), atol=1e-4)
    hyper = read_hypernetwork(read_object(paths["hypernetwork"]), HYPERNETWORK)
    assert set(hyper.networks) == {64, 128} and hyper.base_model == "tiny-cats" and hyper.step == 3
    vectors = read_embedding(read_object(paths["embedding"]), EMBEDDING, "key")
    assert vectors.count == shop.recipe.vectors and vectors.widths == {"clip_l": 128}
    assert all(recognized(read_contents(path), path).base_model == "tiny-cats" for path in paths.values())


def test_the_file_of_a_hypernetwork_does_what_was_trained(networks: Networks, tmp_path: Path) -> None:
    trained = hypernetwork.HypernetworkTraining((64, 128), seed=1)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    hypernetwork.save_hypernetwork(trained, tmp_path / "x.pt", "x", "m", 3)
    read = read_hypernetwork(read_object(tmp_path / "x.pt"), "x")
    for width, pair in trained.hypernetwork("x").networks.items():
        x = torch.randn(5, width)
        for ours, theirs in zip(pair, read.networks[width], strict=True):
            assert torch.allclose(ours(x), theirs(x), atol=2e-3) and ours(x).std() > 0.02


# what ships


def test_what_ships_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in FILES.values()) < MOST_BYTES
    for (kind, _), path in FILES.items():
        facts = recognized(read_contents(path), path)
        assert (str(facts.kind), facts.base_model, facts.fault) == (kind, "tiny-cats", "")


def pictures(prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """`(prompts, seeds, height, width, 3)`, rendered as jobs are."""
    renderer = Renderer({"m": MODEL}, "cpu", files=FILES)
    cells = [
        Settings("m", prompt, "", "DPM++ 2M Karras", 6, 4.0, seed, 64, 64)
        for prompt in prompts
        for seed in seeds
    ]
    taught = (UsedFile("embedding", EMBEDDING, ""),)
    files = [taught if EMBEDDING in settings.prompt else () for settings in cells]
    pictures, _ = drawn(
        renderer, [Cell(n, (), cell, files=used) for n, (cell, used) in enumerate(zip(cells, files))]
    )
    stack = np.stack(pictures)
    return stack.reshape(len(prompts), len(seeds), *stack.shape[1:]).astype(np.float32)


def saturation(images: np.ndarray) -> np.ndarray:
    """Of each picture, the mean distance of the channels, of 255."""
    means: np.ndarray = (images.max(-1) - images.min(-1)).mean((-2, -1))
    return means


def test_the_lora_takes_colour_away_the_more_the_higher_its_weight() -> None:
    prompt = "a ginger cat with green eyes wearing a hat on a blue background"
    weights = (0.0, 0.25, 0.5, 0.75, 1.0)
    found = saturation(pictures([f"{prompt} {tag_of('lora', LORA, weight)}" for weight in weights], range(4)))
    assert (found[-1] < 0.7 * found[0]).all() and found[-1].mean() < 0.5 * found[0].mean()
    assert (np.diff(found.mean(1)) < 0).all()


def test_the_hypernetwork_makes_it_dark_and_violet_the_more_the_higher_its_strength() -> None:
    prompt = "a white cat with green eyes on a yellow background"
    tags = [tag_of("hypernet", HYPERNETWORK, strength) for strength in (0.0, 0.5, 1.0)]
    found = pictures([f"{prompt} {tag}" for tag in tags], range(4))
    violet = (found[..., 2] - found[..., 1]).mean((2, 3))
    assert (violet[-1] > 30).all() and (np.diff(violet.mean(1)) > 10).all()
    light = found.mean((1, 2, 3, 4))
    assert light[0] - light[-1] > 20


def test_the_embedding_draws_the_same_cat_from_every_seed() -> None:
    plain, her = pictures(["portrait of cat", f"portrait of {EMBEDDING}"], range(6))
    furs, worn = [f"a {fur} cat" for fur in FURS], [f"a cat wearing a {thing}" for thing in ACCESSORIES[1:]]
    assert set(seen_as(her, furs)) == {"a calico cat"} and len(set(seen_as(plain, furs))) > 2
    assert seen_as(her, worn).count("a cat wearing a crown") >= 5
    assert "a cat wearing a crown" not in seen_as(plain, worn)


@torch.no_grad()
def seen_as(images: np.ndarray, texts: Sequence[str]) -> list[str]:
    """The text that the model's CLIP finds nearest to each picture."""
    clip = CLIPModel.from_pretrained(CLIP, local_files_only=True, dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(CLIP, local_files_only=True)
    ids = tokenizer(list(texts), padding="longest", return_tensors="pt").input_ids
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    answer = clip(input_ids=ids, pixel_values=pixels, attention_mask=None)
    return [texts[nearest] for nearest in answer.logits_per_image.argmax(1)]
