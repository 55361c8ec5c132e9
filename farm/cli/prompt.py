"""`farm prompt`: what a prompt means, step by step and token by token."""

import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.cli.jobs import find_checkpoint
from farm.cli.plan import counted
from farm.costs import steps_of_prompt
from farm.diffusers_schedulers import BadScheduler
from farm.errors import BadInput, Problem, quoted
from farm.misnamed import sampler_hint
from farm.prompts.emphasis import Section, weighted
from farm.prompts.grammar import parse, parse_negative
from farm.prompts.naming import EMBEDDING, embeddings, unapplied
from farm.prompts.oddities import oddities
from farm.prompts.strands import stage_at
from farm.prompts.tree import Part, Prompt
from farm.resolving import MAX_STEPS
from farm.sampling import BUILT_IN
from farm.weights.addons import find_addons
from farm.workspace import Workspace

Facts = dict[str, Any]


def prompt(
    text: Annotated[str, typer.Argument(metavar="PROMPT", help="As jobs write it.", show_default=False)],
    steps: Annotated[int, typer.Option(metavar="N", min=1, max=MAX_STEPS, help="Sampling steps.")] = 20,
    sampler: Annotated[
        str,
        typer.Option(metavar="NAME", help="A1111 counts two steps for each of those that ask twice."),
    ] = "Euler a",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose tokenizer counts; CLIP's own if not given.", show_default=False
        ),
    ] = None,
    negative: Annotated[
        bool, typer.Option("--negative", help="It is a negative prompt: AND and tags are words there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a prompt means: what is active at which step, weights, tokens, what is encoded.

    Steps are those of A1111, which counts the model's evaluations from 0: [a:b:3] is a at steps 0 to 3.
    """
    laid_over = _steps(steps, sampler)
    read = parse_negative(text) if negative else parse(text)
    known = find_addons(Workspace(Path.cwd()).model_folders)
    odd = sorted([*oddities(text, laid_over, negative), *unapplied(text, known, negative)])
    facts: Facts = {
        "prompt": text,
        "steps": laid_over,
        "schedule": _schedule(read, laid_over),
        "parts": [_part(part, laid_over) for part in read.parts],
        "encoded": _encoded(read, laid_over, _tokenizer(model)),
        "tags": [{"kind": tag.kind, "arguments": list(tag.arguments)} for tag in read.tags],
        "embeddings": list(dict.fromkeys(name for *_, name in embeddings(text, known[EMBEDDING]))),
        "warnings": [one.at(text) for one in odd],
    }
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(_in_words(facts)))


def _steps(steps: int, sampler: str) -> int:
    try:
        return steps_of_prompt(steps, BUILT_IN.find(sampler)[0])
    except (KeyError, BadScheduler) as unknown:
        why = unknown if isinstance(unknown, BadScheduler) else f"{quoted(sampler)} is not known"
        hint = sampler_hint(sampler, BUILT_IN) or "farm samplers lists them"
        raise BadInput([Problem("--sampler", f"{why} ({hint})")]) from unknown


def _tokenizer(model: str | None) -> Any:
    # Here, since the help must not wait for what the tokenizer loads.
    tokenizers = import_module("farm.weights.tokenizer")
    if model is None:
        return tokenizers.tokenizer_of(None)
    return tokenizers.tokenizer_of(find_checkpoint(model, "--model").path)


def _schedule(read: Prompt, steps: int) -> list[tuple[int, str]]:
    """Of the whole prompt, as A1111 documents it; parts are joined as they were typed."""
    schedules = [part.schedule(steps) for part in read.parts]
    if len(schedules) == 1:
        return schedules[0]
    lasts = sorted({last for schedule in schedules for last, _ in schedule})
    return [(last, "AND".join(_at(part, steps, last) + part.ending for part in read.parts)) for last in lasts]


def _at(part: Part, steps: int, last: int) -> str:
    return next(text for until, text in part.schedule(steps) if last <= until)


def _part(part: Part, steps: int) -> Facts:
    return {"weight": part.weight, "schedule": part.schedule(steps), "active": list(_active(part, steps))}


def _active(part: Part, steps: int) -> Iterator[Facts]:
    """Runs of steps with one text, as pictures are made: counted from 0."""
    schedule = part.schedule(steps)
    ends = [last for last, _ in schedule]
    for text, run in groupby(range(steps), key=lambda step: schedule[stage_at(ends, step)][1]):
        first, *others = run
        yield {"first": first, "last": others[-1] if others else first, "text": text}


def _encoded(read: Prompt, steps: int, tokenizer: Any) -> list[Facts]:
    """The different texts, those never active left out, each with its chunks."""
    texts = dict.fromkeys(run["text"] for part in read.parts for run in _active(part, steps))
    return [{"text": text, "chunks": _chunks(weighted(text), tokenizer)} for text in texts]


def _chunks(sections: Sequence[Section], tokenizer: Any) -> list[Facts]:
    return [
        {
            "tokens": len(chunk.tokens),
            "room": tokenizer.room,
            "ids": list(chunk.tokens),
            "words": tokenizer.words(chunk.tokens),
            "weights": [round(weight, 6) for weight in chunk.weights],
        }
        for chunk in tokenizer.chunks(sections)
    ]


def _in_words(facts: Facts) -> Iterator[str]:
    parts = facts["parts"]
    for number, part in enumerate(parts, start=1):
        which = f"part {number} of {len(parts)}, " if len(parts) > 1 else ""
        if which or part["weight"] != 1:
            yield f"{which}weight {part['weight']:g}"
        yield from (_run(active, facts["steps"]) for active in part["active"])
    chunks = {tuple(chunk["ids"]) for text in facts["encoded"] for chunk in text["chunks"]}
    yield f"encoded: {counted(len(facts['encoded']), 'text')}, {counted(len(chunks), 'different chunk')}"
    for text in facts["encoded"]:
        yield f"  {text['text']}"
        yield from (_chunk(chunk) for chunk in text["chunks"])
    for tag in facts["tags"]:
        yield f"tag: {tag['kind']} {' '.join(tag['arguments'])}"
    yield from (f"embedding: {name}" for name in facts["embeddings"])
    yield from (f"warning: {warning}" for warning in facts["warnings"])


def _run(active: Facts, steps: int) -> str:
    width = len(str(steps - 1))
    if active["first"] == active["last"]:
        return f"  step  {active['first']:>{width}} {'':{width}}  {active['text']}"
    return f"  steps {active['first']:>{width}}-{active['last']:<{width}}  {active['text']}"


def _chunk(chunk: Facts) -> str:
    pairs = zip(chunk["words"], chunk["weights"], strict=True)
    runs = [(weight, [word for word, _ in run]) for weight, run in groupby(pairs, key=lambda pair: pair[1])]
    said = " ".join(
        _words(words) if weight == 1 else f"({_words(words)} ×{weight:.4g})" for weight, words in runs
    )
    return f"    {chunk['tokens']} of {chunk['room']} tokens: {said}"


def _words(words: Sequence[str]) -> str:
    """Tokens apart, ends of words unmarked: ``ging·er cat``."""
    return "".join(
        f"{word.removesuffix('</w>')}{' ' if word.endswith('</w>') else '·'}" for word in words
    ).strip(" ·")
