import io
import json
import os

import pytest
import torch
from PIL import Image

from tests.cli.conftest import JOB
from tests.prompts.documented import SCHEDULES
from tests.weights.original_files import tiny, write

LORA = "models/Lora/hats.safetensors"
NOT_THERE = "there is no lora 'x': the picture is as without it"


def facts(farm, *arguments):
    said = farm("prompt", *arguments, "--json")
    assert said.code == 0 and said.err == ""
    return json.loads(said.out)


def test_a_prompt_is_shown_step_by_step(farm):
    said = farm(
        "prompt", "a [ginger:black:0.5] (cat:1.2) <lora:x:1> (y", "--steps", 6, "--model", "tiny-cats"
    )
    assert said.out.splitlines() == [
        "  steps 0-3  a ginger (cat:1.2)  (y",
        "  steps 4-5  a black (cat:1.2)  (y",
        "encoded: 2 texts, 2 different chunks",
        "  a ginger (cat:1.2)  (y",
        "    4 of 75 tokens: a ginger (cat ×1.2) (y ×1.1)",
        "  a black (cat:1.2)  (y",
        "    4 of 75 tokens: a black (cat ×1.2) (y ×1.1)",
        "tag: lora x 1",
        f"warning: character 32, '<lora:x:1>': {NOT_THERE}",
        "warning: character 43, '(y': is never closed: it holds to the end; write \\ before it if it is text",
    ]


@pytest.mark.parametrize(("text", "steps", "schedule", "source"), SCHEDULES[:14])
def test_the_schedule_is_in_a1111_s_form(text, steps, schedule, source, farm):
    assert facts(farm, text, "--steps", steps)["schedule"] == schedule, source


def test_parts_have_schedules_of_their_own(farm):
    found = facts(farm, "[a|b] AND c :0.5", "--steps", "2")
    assert found["schedule"] == [[1, "a AND c :0.5"], [2, "b AND c :0.5"]]
    assert [(part["weight"], part["schedule"]) for part in found["parts"]] == [
        (1, [[1, "a"], [2, "b"]]),
        (0.5, [[2, " c"]]),
    ]


def test_steps_are_those_that_pictures_are_made_with(farm):
    active = facts(farm, "[a:b:2]", "--steps", "5")["parts"][0]["active"]
    assert active == [{"first": 0, "last": 2, "text": "a"}, {"first": 3, "last": 4, "text": "b"}]
    heun = facts(farm, "[a:b:8] [c:d:4]", "--steps", "5", "--sampler", "Heun")
    assert (heun["steps"], heun["evaluations"]) == (10, 9)
    assert [run["text"] for run in heun["parts"][0]["active"]] == ["a c", "a d"]
    plms = facts(farm, "[a:b:5]", "--steps", "6", "--sampler", "PLMS")
    assert plms["parts"][0]["active"] == [
        {"first": 0, "last": 5, "text": "a"},
        {"first": 6, "last": 7, "text": "b"},
    ]


def test_what_is_encoded_is_what_pictures_need(farm):
    def chunks(*arguments):
        return [
            (text["text"], [chunk["tokens"] for chunk in text["chunks"]])
            for text in facts(farm, *arguments)["encoded"]
        ]

    assert chunks("a :0 AND b") == [(" b", [1])]
    assert chunks("[a:b:3]", "--steps", "4") == [("a", [1])]
    assert chunks("a[ BREAK b:2]", "--steps", "6") == [("a", [1, 0]), ("a BREAK b", [1, 1])]


def test_any_text_can_be_shown(farm, monkeypatch):
    assert facts(farm, "a", "cat", "(hat")["prompt"] == "a cat (hat"
    lines = farm("prompt", "ünï\x1b31m 猫\nb").out.splitlines()
    assert lines[0] == "  steps  0-19  ünï\\x1b31m 猫\\nb" and "\x1b" not in "".join(lines)
    monkeypatch.setattr("sys.stdin", io.StringIO("a cat\n"))
    assert facts(farm, "-")["prompt"] == "a cat"
    said = farm("prompt", "a \udcff cat")
    assert (said.code, said.err) == (2, "PROMPT: 'a \\udcff cat' is not a valid text\n")
    assert json.loads(farm("prompt", "a :" + "9" * 400, "--json").out)["parts"][0]["weight"] == 1e9


def test_tokens_are_clip_s_unless_a_model_says_otherwise(farm):
    [text] = facts(farm, "a photo of (a cat:1.5)")["encoded"]
    [chunk] = text["chunks"]
    assert chunk["ids"] == [320, 1125, 539, 320, 2368] and chunk["weights"] == [1, 1, 1, 1.5, 1.5]
    assert (chunk["tokens"], chunk["room"], chunk["words"][-1]) == (5, 75, "cat</w>")
    assert facts(farm, "a photo", "--model", "tiny-cats")["encoded"][0]["chunks"][0]["ids"] != [320, 1125]


def test_files_that_it_names_are_looked_for(farm, workspace):
    (workspace / LORA).parent.mkdir()
    (workspace / LORA).touch()
    assert facts(farm, "<lora:hats:0.5>")["warnings"] == []
    [warning] = facts(farm, "<lora:hat:0.5>")["warnings"]
    assert warning.endswith("the picture is as without it; did you mean 'hats'?")
    assert facts(farm, "a <lora:hats:0.5>")["tags"] == [{"kind": "lora", "arguments": ["hats", "0.5"]}]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--model", "tiny-cat"), "--model: 'tiny-cat' is not known; did you mean 'tiny-cats'?"),
        (("--sampler", "Huen"), "--sampler: 'Huen' is not known; did you mean 'Heun'?"),
        (("--steps", "0"), "greater than or equal to 1"),
    ],
)
def test_options_that_are_wrong_say_what_is_allowed(arguments, error, farm):
    said = farm("prompt", "a cat", *arguments)
    assert said.code == 2 and error in said.err and said.out == ""


def test_check_warns_of_what_looks_odd_in_a_job(farm, workspace):
    job = (workspace / "small.yaml").read_text(encoding="utf-8")
    (workspace / "odd.yaml").write_text(job + "skip:\n  - {prompt: an owl}\n", encoding="utf-8")
    said = farm("check", "odd.yaml")
    line = job.count("\n") + 2
    assert said.code == 0
    assert said.out.splitlines()[1:] == [f"odd.yaml:{line}: warning: skip: this rule drops no combination"]


def test_check_says_what_is_right_beside_what_is_wrong_and_run_counts_warnings(farm, workspace):
    odd = JOB.replace("a ginger cat", "a (ginger cat").replace("name: small", "name: odd")
    (workspace / "odd.yaml").write_text(odd, encoding="utf-8")
    (workspace / "wrong.yaml").write_text(JOB.replace("steps: 3", "steps: 0"), encoding="utf-8")
    said = farm("check", "wrong.yaml", "odd.yaml")
    assert said.code == 2 and said.err.startswith("wrong.yaml:") and said.err.count("\n") == 1
    assert said.out.startswith("odd: 4 cells, no mistakes\nodd.yaml:3: warning: prompt, ")
    said = farm("run", "odd.yaml", "--inline", "--set", "cfg_scale=1")
    assert said.code == 0 and "odd: 1 warning: farm check lists them\nodd: 2 cells" in said.err


def test_a_job_of_the_same_name_as_a_wrong_one_is_wrong(farm, workspace):
    Image.effect_noise((64, 64), 80).save(workspace / "torn.png")
    os.truncate(workspace / "torn.png", 900)
    (workspace / "one.yaml").write_text(JOB + "init_image: torn.png\n", encoding="utf-8")
    (workspace / "two.yaml").write_text(JOB, encoding="utf-8")
    said = farm("check", "one.yaml", "two.yaml")
    assert (said.code, said.out) == (2, "") and "'torn.png' is a broken picture: " in said.err
    assert said.err.endswith("two.yaml: another job of this command is called 'small' too\n")


def test_check_warns_with_places_and_says_no_more_than_is_read(farm, workspace):
    job = (workspace / "small.yaml").read_text(encoding="utf-8")
    (workspace / "small.yaml").write_text(
        job.replace("a ginger cat on a blue background", "a (ginger cat <lora:x:1>")
        + "negative_prompt: hat)\n",
        encoding="utf-8",
    )
    said = farm("check", "small.yaml")
    assert said.code == 0 and said.out.splitlines()[1:] == [
        "small.yaml:3: warning: prompt, character 3, '(ginger cat': is never closed: "
        "it holds to the end; write \\ before it if it is text",
        f"small.yaml:3: warning: prompt, character 15, '<lora:x:1>': {NOT_THERE}",
        "small.yaml:13: warning: negative_prompt, character 4, ')': closes nothing: it is text; "
        "write \\ before it to say so",
    ]
    assert "3 warnings: farm check lists them" in farm("plan", "small.yaml").out
    prompts = "\n".join(f"    - 'cat (x{number}'" for number in range(30))
    many = f"{job.split('sweep')[0]}sweep:\n  prompt:\n{prompts}\n"
    (workspace / "many.yaml").write_text(many, encoding="utf-8")
    lines = farm("check", "many.yaml").out.splitlines()
    assert len(lines) == 22 and lines[-1] == "and 10 more warnings"
    assert lines[1].startswith("many.yaml:9: warning: prompt 1 of 30, character 5, '(x0': ")
    styled = f"{job.split('sweep')[0]}define_styles: {{ink: {{prompt: 'ink ('}}}}\nstyles: ink\n"
    (workspace / "styled.yaml").write_text(f"{styled}negative_prompt: blurry)\n", encoding="utf-8")
    lines = farm("check", "styled.yaml").out.splitlines()
    assert ["warning: prompt as put together, character 40, '(': " in line for line in lines[1:]] == [
        True,
        False,
    ]
    assert "warning: negative_prompt, character 7, ')': " in lines[2]


def test_what_chooses_its_steps_is_guessed_as_by_check(farm):
    found = facts(farm, "[a:b:3]", "--steps", "4", "--sampler", "DPM adaptive")
    assert found["evaluations"] > 4 and found["warnings"] == [] and len(found["encoded"]) == 2


def test_what_is_read_must_be_utf_8(farm, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a \xff cat"), encoding="utf-8"))
    said = farm("prompt", "-")
    assert (
        (said.code, said.out) == (2, "") and "is not a valid text" in said.err and "Traceback" not in said.err
    )


def test_names_are_shown_in_one_line(farm):
    assert "tag: lora a\\x1bb" in farm("prompt", "<lora:a\x1bb>").out


def test_embeddings_stand_among_the_tokens(farm, workspace):
    (workspace / "embeddings").mkdir()
    torch.save({"string_to_param": {"*": torch.zeros(2, 128)}}, workspace / "embeddings" / "bad-art.pt")
    found = facts(farm, "a cat, Bad-Art", "--model", "tiny-cats")
    assert found["embeddings"] == ["bad-art"] and found["warnings"] == []
    [chunk] = found["encoded"][0]["chunks"]
    assert chunk["words"][-2:] == chunk["ids"][-2:] == ["bad-art#1</w>", "bad-art#2</w>"]
    assert chunk["tokens"] == 5


def test_a_single_file_has_the_tokenizer_of_clip(farm, workspace):
    write(tiny("sd1"), workspace / "models" / "Stable-diffusion" / "one.safetensors", torch.float16)
    assert facts(farm, "a cat", "--model", "one")["encoded"] == facts(farm, "a cat")["encoded"]
