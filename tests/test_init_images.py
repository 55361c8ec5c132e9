import io
import json
import struct
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from farm.cell import Cell, Settings, content_key
from farm.costs import evaluations
from farm.errors import BadInput
from farm.explaining import explained
from farm.init_images import MAX_BYTES
from farm.job import Vocabulary, load_job
from farm.pictures import faults_of, prepared
from farm.plan import Plan, compile_job
from farm.results.index import write_index
from farm.results.infotext import infotext, png_bytes, read_cell
from farm.results.pages import heading

HEAD = "model: tiny-cats\nprompt: a cat\nwidth: 64\nheight: 64\n"


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


TEAL, GOLD = (file_of(Image.new("RGB", (8, 8), color)) for color in ("teal", "gold"))


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "jobs" / "init").mkdir(parents=True)
    (tmp_path / "jobs" / "init" / "a, b.png").write_bytes(TEAL)
    (tmp_path / "jobs" / "gold.png").write_bytes(GOLD)
    (tmp_path / "root.png").write_bytes(TEAL)
    return tmp_path


def read(workspace: Path, text: str, *overrides: str) -> Plan:
    path = workspace / "jobs" / "job.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return compile_job(load_job(path, vocabulary(workspace), overrides))


def vocabulary(workspace: Path) -> Vocabulary:
    return Vocabulary(models={"tiny-cats": ()}, plugins={}, root=workspace)


def images(plan: Plan) -> list[str]:
    by_number = sorted(plan.cells, key=lambda cell: cell.number)
    return [str(plan.shown("init_image", cell.settings.init_image)) for cell in by_number]


def refused(workspace: Path, text: str, *overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        read(workspace, text, *overrides)
    [problem] = caught.value.problems
    return str(problem)


# Finding


def test_a_picture_lies_beside_the_job_in_the_folder_of_the_command_or_anywhere(workspace):
    absolute = (workspace / "jobs" / "gold.png").as_posix()
    plan = read(
        workspace,
        f"sweep:\n  init_image:\n    - none\n    - init/a, b.png\n    - {absolute}\n    - root.png\n",
    )
    assert images(plan) == ["", "init/a, b.png", absolute, "init/a, b.png"]  # of one content
    titles = [value.title for value in plan.axes[0].values]
    assert titles == ["none", "init/a, b.png", absolute, "root.png"]
    assert len({cell.settings for cell in plan.cells}) == 3 and plan.image_encodings() == 2


def test_pictures_stand_in_titled_values_zips_rules_and_options(workspace):
    text = (
        "sweep:\n  look:\n    - {title: one, init_image: gold.png, denoising_strength: 0.3}\n"
        "    - {title: two, init_image: root.png}\n  seed: [1, 2]\n"
        "skip:\n  - {init_image: gold.png, seed: 2}\n"
    )
    assert images(read(workspace, text)) == ["gold.png", "root.png", "root.png"]
    zipped = "sweep:\n  zip:\n    init_image: [gold.png, root.png]\n    denoising_strength: [0.2, 0.4]\n"
    assert images(read(workspace, zipped)) == ["gold.png", "root.png"]
    assert images(read(workspace, "init_image: gold.png\n", "init_image=root.png")) == ["root.png"]
    assert images(read(workspace, "init_image: gold.png\n", "init_image=none")) == [""]


def test_the_job_as_run_finds_its_pictures_from_anywhere(workspace):
    text = (
        "init_image: gold.png\nsweep:\n  look:\n    - {title: one, init_image: 'init/a, b.png'}\n"
        "    - {title: two, seed: 3, init_image: root.png}\n    - {title: three, seed: 4}\n"
    )
    plan = read(workspace, text)
    assert "init_image: jobs/gold.png" in plan.job_yaml and "init_image: root.png" in plan.job_yaml
    elsewhere = workspace / "results" / "job" / "job.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(plan.job_yaml, encoding="utf-8")
    again = compile_job(load_job(elsewhere, vocabulary(workspace)))
    assert [cell.settings for cell in again.cells] == [cell.settings for cell in plan.cells]
    assert again.job_yaml == plan.job_yaml


def test_none_in_the_job_as_run_is_no_file_of_that_name(workspace):
    (workspace / "jobs" / "none").write_bytes(TEAL)
    plan = read(workspace, "seed: random\nsweep:\n  init_image: [none, gold.png, ./none]\n")
    assert images(plan) == ["", "gold.png", "./none"]
    elsewhere = workspace / "results" / "job" / "job.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(plan.job_yaml, encoding="utf-8")
    assert images(compile_job(load_job(elsewhere, vocabulary(workspace)))) == [
        "",
        "jobs/gold.png",
        "jobs/none",
    ]


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (
            "gone.png",
            "'gone.png' is not there; the path of a picture is wanted, as seen from {jobs} and {root}",
        ),
        ("init", "'init' is a folder; the path of a picture is wanted, as seen from {jobs} and {root}"),
        ('"a\\0b"', "'a\\x00b' is not there"),
        ("a" * 300, f"'{'a' * 59}"),
    ],
)
def test_what_is_not_there_is_one_line_with_its_place(workspace, written, reason):
    wanted = reason.format(jobs=workspace / "jobs", root=workspace)
    said = refused(workspace, f"init_image: {written}\n")
    assert said.startswith(f"{workspace / 'jobs' / 'job.yaml'}:5: init_image: {wanted}")
    assert "--set init_image=nope" in refused(workspace, "", "init_image=nope")


def test_a_folder_that_is_both_is_named_once(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    Path("job.yaml").write_text(f"{HEAD}init_image: gone.png\n", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load_job(Path("job.yaml"), vocabulary(workspace))
    assert str(caught.value).endswith(f"as seen from {workspace}")


def test_a_file_that_is_too_large_is_refused(workspace):
    with (workspace / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "huge.png: is larger than 64 MiB" in refused(workspace, "init_image: huge.png\n")


def test_files_that_are_too_large_together_are_refused(workspace, monkeypatch):
    monkeypatch.setattr("farm.init_images.MAX_TOGETHER", len(TEAL) + len(GOLD) - 1)
    assert images(read(workspace, "sweep:\n  init_image: [root.png, ../root.png]\n"))
    said = refused(workspace, "sweep:\n  init_image: [root.png, gold.png]\n")
    assert "gold.png: with it, the pictures are larger than " in said


# What it means


def test_a_picture_counts_by_its_content(workspace):
    [before] = read(workspace, "init_image: gold.png\n").cells
    (workspace / "jobs" / "other.png").write_bytes(GOLD)
    [moved] = read(workspace, "init_image: other.png\n").cells
    (workspace / "jobs" / "gold.png").write_bytes(TEAL)
    [edited] = read(workspace, "init_image: gold.png\n").cells
    assert before.keyed("m").key == moved.keyed("m").key != edited.keyed("m").key


def test_keys_of_pictures_that_start_from_noise_are_as_ever():
    wanted = Settings("m", "a cat")
    assert content_key(wanted, (), "h") == "d6600e0fafb392f093872b622c002017"  # of before there were others


def test_strength_without_a_picture_is_told_to_be_of_no_effect(workspace):
    plan = read(workspace, "sweep:\n  denoising_strength: [0.2, 0.9]\n")
    assert plan.notes == ("denoising_strength: no effect where there is no init_image",)
    assert len({cell.settings for cell in plan.cells}) == 1


@pytest.mark.parametrize(
    ("sampler", "steps", "strength", "asked"),
    [
        ("Euler", 20, 0.75, 16),
        ("Euler", 20, 0, 1),
        ("Euler", 20, 1, 20),
        ("Euler", 1, 0.5, 1),
        ("Heun", 20, 0.5, 21),
        ("DPM2", 10, 0.5, 11),
        ("DPM fast", 10, 0.5, 6),
        ("DDIM", 30, 1, 30),  # of 31
        ("diffusers:EulerDiscreteScheduler", 20, 0.75, 15),
        ("diffusers:HeunDiscreteScheduler", 20, 0.5, 19),
        ("diffusers:PNDMScheduler", 20, 0.5, 11),
    ],
)
def test_evaluations_are_those_of_the_steps_that_are_made(workspace, sampler, steps, strength, asked):
    text = f"init_image: gold.png\nsampler: '{sampler}'\nsteps: {steps}\ndenoising_strength: {strength}\n"
    [cell] = read(workspace, text).cells
    assert cell.evaluations == evaluations(cell.settings) == asked


def test_explanations_count_the_rows_of_the_plan(workspace):
    sweep = "sweep:\n  init_image: [none, gold.png, root.png]\n  sampler: [Euler, Heun]\n"
    plan = read(workspace, f"{sweep}  cfg_scale: [1, 5]\n  denoising_strength: [0.5, 1]\n")
    [stretch] = explained(plan).stretches
    assert (stretch.rows, stretch.shared_rows) == (plan.rows(), plan.shared_rows())
    assert plan.shared_rows() == 4 + 2 * 2 * 4  # from noise, and from each picture at each strength
    assert stretch.groups == 5


def test_evaluations_instead_of_steps_count_what_is_made(workspace):
    sweep = "sweep:\n  sampler: [Euler, Heun]\n  denoising_strength: [0.5, 1]\n"
    plan = read(workspace, f"init_image: gold.png\nevaluations: 16\n{sweep}")
    assert sorted(cell.evaluations for cell in plan.cells) == [15, 15, 16, 16]
    assert {cell.settings.steps for cell in plan.cells} == {31, 16, 15, 8}


def test_steps_matter_to_dpm_adaptive_where_they_say_where_it_starts(workspace):
    sweep = "sampler: DPM adaptive\nsweep:\n  steps: [10, 20]\n"
    assert len({cell.settings for cell in read(workspace, sweep).cells}) == 1
    plan = read(workspace, f"init_image: gold.png\n{sweep}")
    assert len({cell.settings for cell in plan.cells}) == 2 and plan.notes == ()


def test_restart_adds_no_noise_where_too_few_steps_are_left(workspace):
    sweep = "init_image: gold.png\nsampler: Restart\nsteps: 24\nsweep:\n  s_noise: [1, 1.1]\n"
    assert len({one.settings for one in read(workspace, f"{sweep}denoising_strength: 0.9\n").cells}) == 2
    assert len({one.settings for one in read(workspace, f"{sweep}denoising_strength: 0.5\n").cells}) == 1
    schedules = "sampler: Restart\nsteps: 24\nsweep:\n  schedule: [karras, uniform]\n"
    assert len({one.settings for one in read(workspace, schedules).cells}) == 1
    assert len({one.settings for one in read(workspace, f"init_image: gold.png\n{schedules}").cells}) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sampler: PLMS\n", "job.yaml:6: sampler: PLMS cannot start from a picture; a rule under `skip`"),
        (
            "sampler: diffusers:DDIMScheduler\ndenoising_strength: 0.04\n",
            "job.yaml:7: denoising_strength: 0.04 is too little for diffusers:DDIMScheduler; of its 20 steps "
            "at least 0.05 leaves one",
        ),
        (
            "sampler: diffusers:FlowMatchEulerDiscreteScheduler\n",
            "job.yaml:6: sampler: diffusers:FlowMatchEulerDiscreteScheduler cannot start from a picture; "
            "a rule under `skip` leaves it out",
        ),
        ("denoising_strength: 1.5\n", "denoising_strength: 1.5 is not allowed; a number from 0 to 1"),
    ],
)
def test_what_cannot_be_is_one_line(workspace, text, said):
    assert said in refused(workspace, f"init_image: gold.png\n{text}")


def test_a_rule_leaves_out_the_sampler_that_cannot(workspace):
    text = "init_image: gold.png\nsweep:\n  sampler: [Euler, PLMS]\nskip:\n  - {sampler: PLMS}\n"
    assert len(read(workspace, text).cells) == 1


# What is said of it


def test_tables_and_headings_name_the_picture_and_infotext_its_hash(workspace, tmp_path):
    plan = read(workspace, "init_image: gold.png\nseeds: 2\n").keyed({"tiny-cats": "5" * 64})
    assert heading(plan, plan.cells, {})["init_image"] == "gold.png"
    index = write_index(plan, {}, tmp_path).read_text(encoding="utf-8")
    assert index.count(",gold.png,0.75,") == 2
    [cell, _] = plan.cells
    assert f"Denoising strength: 0.75, RNG: CPU, Init image: {cell.settings.init_image[:10]}" in infotext(
        cell
    )
    png = tmp_path / "a.png"
    png.write_bytes(png_bytes(Image.new("RGB", (8, 8)), cell))
    assert read_cell(png) == cell
    assert json.loads(Image.open(png).info["farm"])["settings"]["denoising_strength"] == 0.75


def test_infotext_of_a_picture_from_noise_has_no_strength():
    assert "Denoising" not in infotext(Cell(1, (), Settings("m", "a cat")))


# What is in the file


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a right angle
    return file_of(image, "PNG", exif=exif)


def halves() -> Image.Image:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    return image


def test_pictures_are_turned_upright():
    upright = prepared(turned(halves()), 20, 40)
    assert (upright.getpixel((10, 5)), upright.getpixel((10, 35))) == ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_the_one_of_pillow(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_of(halves(), "PNG", exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        wanted = ImageOps.exif_transpose(image)
    assert prepared(content, *wanted.size).tobytes() == wanted.tobytes()


def test_a_photo_whose_other_data_are_odd_can_be_used():
    """The unit of its resolution is a number, if one keeps to the format; then Pillow cannot write it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0128] = 2
    content = bytearray(file_of(halves(), "JPEG", exif=exif))
    at = content.index(b"\x28\x01") if b"\x28\x01" in content else content.index(b"\x01\x28")
    little = content[at : at + 2] == b"\x28\x01"
    content[at + 2 : at + 4] = b"\x02\x00" if little else b"\x00\x02"  # as text
    with Image.open(io.BytesIO(content)) as image, pytest.raises((TypeError, struct.error)):
        ImageOps.exif_transpose(image)
    assert faults_of([bytes(content)])[0] == ""
    assert prepared(bytes(content), 20, 40).size == (20, 40)


def test_pictures_are_resized_by_lanczos_whatever_their_proportions():
    image = ImageOps.expand(Image.effect_noise((50, 30), 80), 5, 255).convert("RGB")
    found = prepared(file_of(image), 32, 48)
    assert (found.mode, found.size) == ("RGB", (32, 48))
    assert found.tobytes() == image.resize((32, 48), Image.Resampling.LANCZOS).tobytes()
    assert prepared(file_of(image), *image.size).tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0)).convert(mode)
    content = file_of(image, "PNG", **({"transparency": 0} if mode == "P" else {}))
    assert prepared(content, 16, 16).getpixel((8, 8)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("1", "PNG"),
        ("CMYK", "JPEG"),
        ("RGB", "WEBP"),
        ("P", "GIF"),
        ("RGB", "TIFF"),
    ],
)
def test_usual_pictures_can_be_used(mode, kind):
    content = file_of(Image.new("RGB", (16, 16), "white").convert(mode), kind)
    assert faults_of([content])[0] == ""
    assert min(prepared(content, 8, 8).getpixel((4, 4))) > 250


LARGE = file_of(Image.effect_noise((64, 64), 80))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is none of PNG, JPEG, WEBP, BMP, GIF and TIFF, which can be read"),
        (b"<svg></svg>", "is none of PNG, "),
        (LARGE[: len(LARGE) // 2], "is a broken picture: image file is truncated"),
        (file_of(halves(), "JPEG")[:-400], "is a broken picture: Truncated File Read"),
        (file_of(Image.new("I;16", (4, 4))), "has gray of more than 8 bits; 8 bits a channel are wanted"),
        (file_of(Image.new("F", (4, 4)), "TIFF"), "has gray of more than 8 bits; "),
        (file_of(halves(), "EPS"), "is none of PNG, "),
    ],
)
def test_what_cannot_be_used_says_why(content, fault):
    assert faults_of([content])[0].startswith(fault)


@pytest.mark.parametrize("most", [700, 300])
def test_too_many_pixels_are_refused_before_they_are_read(most, monkeypatch):
    """Pillow warns of the first, and raises on twice as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    assert faults_of([file_of(halves())])[0] == f"has more than {most} pixels, which are too many"
