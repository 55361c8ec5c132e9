import json

import pytest

from tests.prompts.documented import SCHEDULES

LORA = "models/Lora/hats.safetensors"


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
        "warning: character 32, '<lora:x:1>': there is no lora called 'x'",
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
    assert facts(farm, "[a:b:2]", "--steps", "5", "--sampler", "Heun")["steps"] == 10


def test_tokens_are_clip_s_unless_a_model_says_otherwise(farm):
    [text] = facts(farm, "a photo of (a cat:1.5)")["encoded"]
    [chunk] = text["chunks"]
    assert chunk["ids"] == [320, 1125, 539, 320, 2368] and chunk["weights"] == [1, 1, 1, 1.5, 1.5]
    assert (chunk["tokens"], chunk["room"], chunk["words"][-1]) == (5, 75, "cat</w>")
    assert facts(farm, "a photo", "--model", "tiny-cats")["encoded"][0]["chunks"][0]["ids"] != [320, 1125]


def test_files_that_it_names_are_looked_for(farm, workspace):
    (workspace / LORA).parent.mkdir()
    (workspace / LORA).touch()
    [warning] = facts(farm, "<lora:hats:0.5>")["warnings"]
    assert "not applied yet" in warning
    [warning] = facts(farm, "<lora:hat:0.5>")["warnings"]
    assert "did you mean 'hats'?" in warning
    assert facts(farm, "a <lora:hats:0.5>")["tags"] == [{"kind": "lora", "arguments": ["hats", "0.5"]}]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--model", "tiny-cat"), "--model: 'tiny-cat' is not known; did you mean 'tiny-cats'?"),
        (("--sampler", "Eule"), "--sampler: 'Eule' is not known"),
        (("--steps", "0"), "greater than or equal to 1"),
    ],
)
def test_options_that_are_wrong_say_what_is_allowed(arguments, error, farm):
    said = farm("prompt", "a cat", *arguments)
    assert said.code == 2 and error in said.err and said.out == ""


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
        "small.yaml:3: warning: prompt, character 15, '<lora:x:1>': there is no lora called 'x'",
        "small.yaml:13: warning: negative_prompt, character 4, ')': closes nothing: it is text; "
        "write \\ before it to say so",
    ]
    assert "3 warnings about prompts: farm check lists them" in farm("plan", "small.yaml").out
    prompts = "\n".join(f"    - 'cat (x{number}'" for number in range(30))
    many = f"{job.split('sweep')[0]}sweep:\n  prompt:\n{prompts}\n"
    (workspace / "many.yaml").write_text(many, encoding="utf-8")
    lines = farm("check", "many.yaml").out.splitlines()
    assert len(lines) == 22 and lines[-1] == "and 10 more warnings"
