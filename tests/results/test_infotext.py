import io
import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager

import farm
from farm.cell import PluginUse, UsedFile
from farm.errors import FarmError
from farm.results.infotext import infotext, png_bytes, read_cell, read_infotext
from tests.results.samples import HASH, make_plan, picture

PROMPTS = [
    "portrait of beautiful cat",
    "a cat, ginger, (green eyes:1.2), [hat|scarf]",
    'she said: "meow", then left',
    "first line\nsecond line: with colon, and comma",
    "Steps: 3, Sampler: x",
    "Steps: 3, Sampler: x, CFG scale: 1, Seed: 2\nSteps: 99, Sampler: y, CFG scale: 9, Seed: 9, Size: 1x1",
    "кошка, 猫, 😀 café",
    "café",
    'Hashes: {"a": "b"}, cat',
    "",
]


def cell(**settings):
    return make_plan(**settings).cells[0]


def read_back(tmp_path, wanted):
    path = tmp_path / "picture.png"
    path.write_bytes(png_bytes(picture(wanted, (8, 8)), wanted))
    [sampler] = ParserManager().parse(path).samplers
    return sampler


def assert_settings_read_back(sampler, settings):
    assert sampler.name == settings.sampler
    assert [prompt.value for prompt in sampler.prompts] == [settings.prompt.strip()][
        : bool(settings.prompt.strip())
    ]
    negative = settings.negative_prompt.strip()
    assert [prompt.value for prompt in sampler.negative_prompts] == [negative][: bool(negative)]
    assert int(sampler.parameters["steps"]) == settings.steps
    assert float(sampler.parameters["cfg_scale"]) == settings.cfg_scale
    assert int(sampler.parameters["seed"]) == settings.seed
    assert sampler.model.name == settings.model
    assert sampler.model.hash == HASH[:10]


@pytest.mark.parametrize("negative", ["", "nudity", "blurry, (bad: 1.3)\nSteps: 1, Sampler: z, Seed: 4"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_another_reader_finds_every_setting(tmp_path, prompt, negative):
    wanted = cell(
        prompt=prompt, negative_prompt=negative, sampler="DPM++ 2M Karras", steps=25, cfg_scale=7.5,
        seed=3805052747, clip_skip=2,
    )  # fmt: skip
    assert_settings_read_back(read_back(tmp_path, wanted), wanted.settings)
    metadata = ParserManager().parse(tmp_path / "picture.png").metadata
    assert metadata["Size"] == f"{wanted.settings.width}x{wanted.settings.height}"
    assert metadata["Clip skip"] == "2"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200).filter(
    lambda text: "Negative prompt:" not in text
)


@given(
    prompt=texts,
    negative=texts,
    steps=st.integers(1, 150),
    cfg_scale=st.floats(0, 30, allow_nan=False),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_text_is_read_back(tmp_path_factory, prompt, negative, steps, cfg_scale, seed):
    wanted = cell(prompt=prompt, negative_prompt=negative, steps=steps, cfg_scale=cfg_scale, seed=seed)
    folder = tmp_path_factory.getbasetemp()
    assert_settings_read_back(read_back(folder, wanted), wanted.settings)
    assert read_cell(folder / "picture.png") == wanted
    assert read_infotext(folder / "picture.png") == infotext(wanted)


def test_the_order_and_spelling_of_a1111():
    wanted = cell(
        prompt=" a cat ", negative_prompt="nudity", sampler="Euler a", steps=20, cfg_scale=7.0, seed=1,
        width=512, height=768, clip_skip=2, model="v1-5: pruned, ema", init_image="0123456789abcdef" * 4,
        denoising_strength=0.7,
    )  # fmt: skip
    assert infotext(wanted, {"Hires upscale": 2.0, "Lora hashes": "a: 1, b: 2", "Eta": None}) == (
        "a cat\nNegative prompt: nudity\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: 5be3f4a65b, "
        "Model: v1-5 pruned ema, Denoising strength: 0.7, Clip skip: 2, RNG: CPU, Init image: 0123456789, "
        'Hires upscale: 2, Lora hashes: "a: 1, b: 2", '
        f"Version: farm {farm.__version__}"
    )


@pytest.mark.parametrize(
    ("sampler", "name", "options"),
    [
        ("diffusers:DDIMScheduler", "diffusers DDIMScheduler", None),
        (
            "diffusers:DDIMScheduler(steps_offset=1, timestep_spacing=trailing)",
            "diffusers DDIMScheduler",
            '"steps_offset=1, timestep_spacing=trailing"',
        ),
    ],
)
def test_another_reader_finds_the_schedulers_of_diffusers(tmp_path, sampler, name, options):
    wanted = cell(prompt="a cat", sampler=sampler)
    assert_settings_read_back(read_back(tmp_path, wanted), replace(wanted.settings, sampler=name))
    assert ("Sampler options" in infotext(wanted)) == bool(options)
    assert f"Sampler options: {options}" in infotext(wanted) or not options


def test_what_is_usual_is_left_out():
    text = infotext(replace(cell(prompt="a cat"), model_hash=""))
    assert text.startswith("a cat\nSteps: ")
    assert "Clip skip" not in text and "Model hash" not in text and "Negative" not in text


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_the_pixels_survive(mode):
    wanted = cell()
    image = picture(wanted).convert(mode)
    stored = Image.open(io.BytesIO(png_bytes(image, wanted)))
    assert stored.mode == mode and stored.tobytes() == image.tobytes()


def test_plugins_come_back(tmp_path):
    wanted = replace(cell(), plugins=(PluginUse("nsfw", "1.2", '{"action":"blackout"}', True),))
    path = tmp_path / "picture.png"
    path.write_bytes(png_bytes(picture(wanted), wanted))
    assert read_cell(path) == wanted


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(FarmError, match="broken.png: cannot be read as PNG"):
        read_cell(path)


def test_a_strangers_picture_is_named(tmp_path):
    path = tmp_path / "other.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(FarmError, match="other.png: has no text chunk 'farm'"):
        read_cell(path)


@pytest.mark.parametrize(
    ("settings", "name", "schedule"),
    [
        ({"sampler": "DPM++ 2M", "schedule": "karras"}, "DPM++ 2M Karras", None),
        ({"sampler": "DPM++ 2M", "schedule": "uniform"}, "DPM++ 2M", "Uniform"),
        ({"sampler": "DPM++ 2M SDE", "schedule": "exponential"}, "DPM++ 2M SDE Exponential", None),
        ({"sampler": "DPM++ 2M", "schedule": "sgm_uniform"}, "DPM++ 2M", "SGM Uniform"),
        ({"sampler": "Euler a", "schedule": "uniform"}, "Euler a", None),
        ({"sampler": "Euler a", "schedule": "karras"}, "Euler a", "Karras"),
        ({"sampler": "Restart", "schedule": "karras"}, "Restart", None),
        ({"sampler": "DPM fast", "schedule": "uniform"}, "DPM fast", None),
        ({"sampler": "DDIM", "schedule": "ddim"}, "DDIM", None),
        ({"sampler": "PLMS", "schedule": "ddim"}, "PLMS", None),
        ({"sampler": "UniPC", "schedule": "sgm_uniform"}, "UniPC", None),
        ({"sampler": "DDIM", "schedule": "karras"}, "DDIM", "Karras"),
        ({"sampler": "Midpoint", "schedule": "squares"}, "Midpoint", "squares"),
    ],
)
def test_samplers_go_by_the_names_of_a1111(tmp_path, settings, name, schedule):
    sampler = read_back(tmp_path, cell(**settings))
    metadata = ParserManager().parse(tmp_path / "picture.png").metadata
    assert schedule in (sampler.parameters.get("scheduler"), metadata.get("Schedule type"))
    assert f"Sampler: {name}, " in read_infotext(tmp_path / "picture.png")


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"eta": 1.0}, {"Eta": None, "RNG": "CPU"}),
        ({"eta": 0.5, "rng": "nv"}, {"Eta": "0.5", "RNG": "NV"}),
        ({"sampler": "DDIM", "eta": 0.0}, {"Eta": None, "Eta DDIM": None}),
        ({"sampler": "DDIM", "eta": 1.0}, {"Eta": None, "Eta DDIM": "1"}),
        ({"s_churn": 3.5, "s_tmin": 0.5, "s_tmax": 9.0, "s_noise": 1.1},
         {"Sigma churn": "3.5", "Sigma tmin": "0.5", "Sigma tmax": "9", "Sigma noise": "1.1"}),
        ({"sigma_min": 0.1, "sigma_max": 10.0, "rho": 5.0},
         {"Schedule min sigma": "0.1", "Schedule max sigma": "10", "Schedule rho": "5"}),
        ({"discard_next_to_last_sigma": True}, {"Discard penultimate sigma": "True"}),
        ({"sampler": "DPM2", "discard_next_to_last_sigma": False}, {"Discard penultimate sigma": "False"}),
        ({"sampler": "DPM2"}, {"Discard penultimate sigma": None}),
        ({"negative_guidance_minimum_sigma": 2.5, "guidance_rescale": 0.7},
         {"NGMS": "2.5", "CFG Rescale phi": "0.7"}),
        ({"variation_seed": 9, "variation_strength": 0.25},
         {"Variation seed": "9", "Variation seed strength": "0.25"}),
        ({"variation_seed": 9}, {"Variation seed": None, "Variation seed strength": None}),
        ({"seed_resize_from_width": 64, "seed_resize_from_height": 32}, {"Seed resize from": "64x32"}),
        ({"eta_noise_seed_delta": 31337}, {"ENSD": "31337"}),
        ({"zero_terminal_snr": True}, {"Noise Schedule": "Zero Terminal SNR"}),
        ({"token_merging_ratio": 0.5}, {"Token merging ratio": "0.5", "Guidance stop": None}),
        ({"guidance_stop": 0.75}, {"Guidance stop": "0.75", "Token merging ratio": None}),
        ({"deepcache_interval": 3}, {"DeepCache interval": "3", "DeepCache branch": None}),
        ({"deepcache_interval": 3, "deepcache_branch": 2}, {"DeepCache branch": "2"}),
        ({"deepcache_branch": 2}, {"DeepCache interval": None, "DeepCache branch": None}),
    ],
)  # fmt: skip
def test_settings_have_the_keys_of_a1111(settings, keys):
    line = infotext(cell(**settings)).splitlines()[-1]
    found = dict(pair.split(": ", 1) for pair in line.split(", "))
    assert {key: found.get(key) for key in keys} == keys


def test_cells_of_before_are_read(tmp_path):
    entry = asdict(cell(sampler="Heun"))
    old = ("model", "prompt", "negative_prompt", "sampler", "steps", "cfg_scale", "seed", "width", "height",
           "clip_skip", "precision")  # fmt: skip
    entry["settings"] = {name: entry["settings"][name] for name in old}
    del entry["evaluations"]
    texts = PngImagePlugin.PngInfo()
    texts.add_text("farm", json.dumps(entry))
    Image.new("RGB", (8, 8)).save(tmp_path / "old.png", pnginfo=texts)
    assert read_cell(tmp_path / "old.png") == cell(sampler="Heun")


def test_files_beside_the_checkpoint_are_told_as_a1111_does():
    made = replace(
        cell(prompt="a cat <lora:ink:1>", vae="fine"),
        files=(
            UsedFile("embedding", "sd15/bad", "c" * 64), UsedFile("lora", "ink", "a" * 64),
            UsedFile("lora", "x/pen", "b" * 64), UsedFile("vae", "fine", "d" * 64),
        ),
    )  # fmt: skip
    text = infotext(made)
    assert "VAE hash: dddddddddd, VAE: fine" in text
    assert 'Lora hashes: "ink: aaaaaaaaaa, pen: bbbbbbbbbb", TI hashes: "bad: cccccccccc"' in text
