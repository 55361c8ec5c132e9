import os
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

from diffusers import DDIMScheduler, StableDiffusionPipeline  # noqa: E402  # offline before the first import
from transformers import CLIPModel  # noqa: E402

from tools.train_demo_model.attributes import LEVELS, Cat, sample_cat, with_wrong_words  # noqa: E402
from tools.train_demo_model.captions import caption, full_caption, vocabulary  # noqa: E402
from tools.train_demo_model.dataset import cat_at  # noqa: E402
from tools.train_demo_model.drawing import draw_cat  # noqa: E402
from tools.train_demo_model.export import folder_sizes, replace_folder  # noqa: E402
from tools.train_demo_model.recipe import toy_recipe  # noqa: E402
from tools.train_demo_model.stages import STAGES, Workshop, load_exported  # noqa: E402
from tools.train_demo_model.tokenizer import END, START, build_tokenizer  # noqa: E402
from tools.train_demo_model.training import Draw, Plan, Training, averaged_state, spent  # noqa: E402
from tools.train_demo_model.vae import VaeSize, build_vae, picture_loss  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = MODELS / "Stable-diffusion" / "tiny-cats"
SHIPPED_CLIP = MODELS / "clip" / "tiny-cats"
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    place = tmp_path_factory.mktemp("toy")
    shop = Workshop(toy_recipe(), place / "work", place / "models")
    for stage in STAGES.values():
        stage(shop)
    return shop


def test_same_seed_draws_same_bits() -> None:
    one, other = draw_cat(cat_at(7, 3)), draw_cat(cat_at(7, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], draw_cat(cat_at(7, 4))[0])


def test_picture_shows_the_ground_and_marks_the_eyes() -> None:
    blue, saliency = draw_cat(Cat(ground="blue"))
    red, _ = draw_cat(Cat(ground="red"))
    assert blue.shape == (64, 64, 3) and blue.dtype == np.uint8
    assert blue[5, 2, 2] > blue[5, 2, 0] and red[5, 2, 0] > red[5, 2, 2]
    assert saliency.max() == 255 and saliency[2, 2] == 0


@pytest.mark.parametrize("attribute", ["fur", "eyes", "ground", "accessory", "mood"])
def test_every_value_changes_the_picture(attribute: str) -> None:
    pictures = {draw_cat(Cat(**{attribute: value}))[0].tobytes() for value in LEVELS[attribute]}
    assert len(pictures) == len(LEVELS[attribute])


def test_full_caption_names_the_attributes() -> None:
    cat = Cat(fur="ginger", eyes="green", ground="blue", accessory="hat", tint="red", mood="happy")
    expected = "a happy ginger cat with green eyes wearing a red hat on a blue background"
    assert full_caption(cat) == expected


def test_captions_name_only_what_the_picture_shows() -> None:
    cat = Cat(fur="black", eyes="blue", ground="pink", accessory="scarf", tint="red", mood="happy")
    texts = [caption(cat, np.random.default_rng(k)) for k in range(60)]
    assert len(set(texts)) > 40
    absent = ("ginger", "calico", "green", "teal", "hat", "crown", "grumpy", "sleepy", "tabby")
    assert not [text for text in texts if any(word in text.split() for word in absent)]
    assert sum("black" in text for text in texts) > 30


def test_wrong_words_follow_the_odds() -> None:
    cat = Cat()
    assert with_wrong_words(cat, 0.0, np.random.default_rng(1)) == cat
    wrong = with_wrong_words(cat, 1.0, np.random.default_rng(1))
    assert wrong.fur != cat.fur and wrong.eyes != cat.eyes and wrong.x == cat.x


def test_known_words_are_one_token_and_others_fall_back_to_bytes(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path, vocabulary())
    assert all(len(tokenizer(word).input_ids) == 3 for word in vocabulary())
    ids = tokenizer("xyzzy ünï").input_ids
    assert len(ids) > 8 and ids[0] == tokenizer.convert_tokens_to_ids(START)
    assert ids[-1] == tokenizer.convert_tokens_to_ids(END)


def test_gradients_reach_every_parameter_of_the_autoencoder() -> None:
    vae = build_vae(VaeSize(channels=(8, 8, 16, 16), groups=4), seed=1)
    target = torch.rand(2, 3, 64, 64) * 2 - 1
    posterior = vae.encode(target).latent_dist
    latents = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
    picture_loss(vae.decode(latents).sample, target, torch.ones(2, 1, 64, 64)).backward()
    missing = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of all keys alike changes no softmax: this one bias has no gradient by mathematics.
    assert [name for name in missing if not name.endswith("to_k.bias")] == []


def _fit(folder: Path, steps: int) -> torch.nn.Linear:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    training = Training("line", folder, module, Plan(steps=steps, batch=4, rate=1e-2, decay=0.0))

    def loss(draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        x = draw.normal((4, 3))
        return (module(x) - x.sum(1, keepdim=True)).square().mean(), {"step": float(draw.step)}

    training.run(loss)
    return module


def test_interrupted_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = _fit(tmp_path / "whole", 20)
    _fit(tmp_path / "parts", 12)
    saved = torch.load(tmp_path / "parts" / "line.pt", weights_only=True)
    assert saved["step"] == 12
    resumed = _fit(tmp_path / "parts", 20)
    assert torch.equal(whole.weight, resumed.weight)
    assert spent(tmp_path / "parts", "line")[1] >= saved["seconds"]


def test_replaced_folder_holds_only_the_new_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        replace_folder(tmp_path / "model", lambda place, name=name: (place / name).touch())
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "two"]


@pytest.mark.slow
def test_toy_training_ends_in_a_folder_that_draws(toy: Workshop) -> None:
    pipeline = load_exported(toy)
    image = pipeline("a cat", num_inference_steps=2, height=64, width=64).images[0]
    assert image.size == (64, 64)
    assert {"vocab.json", "merges.txt"} <= {path.name for path in (toy.model_folder / "tokenizer").iterdir()}
    assert (toy.work / "sheets" / "prompts.png").exists()


@pytest.mark.slow
def test_toy_card_states_figures_and_sizes(toy: Workshop) -> None:
    text = (toy.model_folder / "README.md").read_text()
    assert "license: apache-2.0" in text and "CFG 5" in text and "dB PSNR" in text
    assert f"{sum(folder_sizes(toy.model_folder).values()):,}" in text


@pytest.mark.slow
def test_text_encoder_is_the_clips_own_text_tower(toy: Workshop) -> None:
    clip, encoder = CLIPModel.from_pretrained(toy.clip_folder), load_exported(toy).text_encoder
    ids = toy.tokenizer("a ginger cat", return_tensors="pt").input_ids
    inner = clip.text_model(input_ids=ids).last_hidden_state.float()
    assert torch.allclose(encoder(input_ids=ids).last_hidden_state, inner, atol=2e-2)


def test_finished_stage_is_not_trained_again(toy: Workshop) -> None:
    before = averaged_state(toy.work, "unet")
    STAGES["unet"](toy)
    after = averaged_state(toy.work, "unet")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_shipped_model_is_small_and_draws_offline() -> None:
    assert sum(folder_sizes(SHIPPED).values()) <= MOST_BYTES
    pipeline = StableDiffusionPipeline.from_pretrained(SHIPPED, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pictures = [_paint(pipeline, f"a cat on a {ground} background") for ground in ("red", "blue")]
    corner = [picture[:12, :12].mean((0, 1)) for picture in pictures]
    assert corner[0][0] > corner[0][2] and corner[1][2] > corner[1][0]


def test_shipped_model_follows_its_prompt_with_ddim_too() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(SHIPPED, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    corner = _paint(pipeline, "a cat on a red background")[:12, :12].mean((0, 1))
    assert corner[0] > corner[2]


def _paint(pipeline: StableDiffusionPipeline, prompt: str) -> np.ndarray:
    seed = torch.Generator().manual_seed(1)
    image = pipeline(prompt, num_inference_steps=12, guidance_scale=5, height=64, width=64, generator=seed)
    return np.asarray(image.images[0]).astype(float)


def test_shipped_clip_tells_cats_apart() -> None:
    from transformers import CLIPTokenizer

    clip, tokenizer = (
        CLIPModel.from_pretrained(SHIPPED_CLIP).float(),
        CLIPTokenizer.from_pretrained(SHIPPED_CLIP),
    )
    cats = [sample_cat(np.random.default_rng(k)) for k in range(8)]
    pixels = torch.from_numpy(np.stack([draw_cat(cat)[0] for cat in cats])).permute(0, 3, 1, 2) / 127.5 - 1
    ids = tokenizer([full_caption(cat) for cat in cats], padding=True, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = clip(input_ids=ids, pixel_values=pixels, attention_mask=None).logits_per_image
    assert (logits.argmax(1) == torch.arange(8)).float().mean() >= 0.75
