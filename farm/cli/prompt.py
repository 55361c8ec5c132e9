"""`farm prompt`: what a prompt means, step by step and token by token."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.cli.jobs import find_checkpoint, look_around, option_value
from farm.cli.options import Models
from farm.cli.words import counted
from farm.costs import evaluations_at, schedule_of, steps_of_prompt
from farm.errors import BadInput, Problem, quoted
from farm.prompts.chunks import Chunk
from farm.prompts.emphasis import weighted
from farm.prompts.grammar import parse, parse_negative
from farm.prompts.naming import EMBEDDING, embeddings, unapplied, untagged
from farm.prompts.oddities import oddities
from farm.prompts.strands import Said, said_by, stage_at
from farm.prompts.tree import Part, Prompt
from farm.resolving import MAX_STEPS
from farm.sampling import BUILT_IN
from farm.weights.addons import addon_names

Facts = dict[str, Any]


def prompt(
    words: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT", help="As jobs write it; - reads it.", show_default=False),
    ],
    steps: Annotated[int, typer.Option(metavar="N", min=1, max=MAX_STEPS, help="Sampling steps.")] = 20,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="It decides how often the model is asked.")
    ] = "Euler a",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose tokenizer counts; CLIP's own if not given.", show_default=False
        ),
    ] = None,
    models: Models = None,
    negative: Annotated[
        bool, typer.Option("--negative", help="It is a negative prompt: AND and tags are words there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a prompt means: what is active at which step, weights, tokens, what is encoded.

    Put it in 'single quotes', or the shell takes brackets and bars for its own. Steps are those of A1111,
    which counts the times that the model is asked from 0: [a:b:3] is a at steps 0 to 3.
    """
    text = _text(words)
    laid_over, asked, surely = _steps(steps, sampler)
    read = parse_negative(text) if negative else parse(text)
    said = said_by(text, laid_over, asked if surely else None, negative)
    place = look_around(None, models)
    known = addon_names(place.catalog)
    searched = text if negative else untagged(text)
    named = list(dict.fromkeys(name for *_, name in embeddings(searched, known[EMBEDDING])))
    found = {name: place.named.embedding_names[name][0].path for name in named}
    odd = sorted([*oddities(text, laid_over, asked, negative), *unapplied(text, known, negative)])
    facts: Facts = {
        "prompt": text,
        "steps": laid_over,
        "evaluations": asked,
        "schedule": _schedule(read, laid_over),
        "parts": [_part(part, laid_over, asked) for part in read.parts],
        "encoded": _encoded(
            [one for one, part in zip(said, read.parts) if part.weight], _tokenizer(model, models, found)
        ),
        "tags": [{"kind": tag.kind, "arguments": list(tag.arguments)} for tag in read.tags],
        "embeddings": named,
        "warnings": [one.at(text) for one in odd],
    }
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(_in_words(facts)))


def _text(words: Sequence[str]) -> str:
    """Words that the shell took apart are one prompt all the same."""
    text = " ".join(words)
    try:
        text = sys.stdin.read().strip() if text == "-" else text
        text.encode()
    except UnicodeError as error:
        raise BadInput([Problem("PROMPT", f"{quoted(text)} is not a valid text")]) from error
    return text


def _steps(steps: int, sampler: str) -> tuple[int, int, bool]:
    """The steps that the prompt is laid over, how often the model is asked, and whether that is sure."""
    row, named = BUILT_IN.find(option_value("sampler", sampler, "--sampler"))
    asked = evaluations_at(steps, row, schedule_of(row, named, BUILT_IN))
    return steps_of_prompt(steps, row), asked, not row.chooses_steps


def _tokenizer(model: str | None, models: Sequence[Path] | None, embeddings: Mapping[str, Path]) -> Any:
    # Here, since the help must not wait for what the tokenizer loads.
    tokenizers = import_module("farm.weights.tokenizer")
    path = None if model is None else find_checkpoint(model, "--model", models).path
    tokenizer = tokenizers.tokenizer_of(path)
    if not embeddings:
        return tokenizer
    load = import_module("farm.weights.embedding_file").load_embedding
    return tokenizer.knowing({name: load(path, name) for name, path in embeddings.items()})


def _schedule(read: Prompt, steps: int) -> list[tuple[int, str]]:
    """Of the whole prompt, as A1111 documents it; parts are joined as they were typed."""
    schedules = [part.schedule(steps) for part in read.parts]
    if len(schedules) == 1:
        return schedules[0]
    lasts = sorted({last for schedule in schedules for last, _ in schedule})
    return [(last, "AND".join(_at(part, steps, last) + part.ending for part in read.parts)) for last in lasts]


def _at(part: Part, steps: int, last: int) -> str:
    return next(text for until, text in part.schedule(steps) if last <= until)


def _part(part: Part, steps: int, evaluations: int) -> Facts:
    schedule = part.schedule(steps)
    return {"weight": part.weight, "schedule": schedule, "active": list(_active(schedule, evaluations))}


def _active(schedule: Sequence[tuple[int, str]], evaluations: int) -> Iterator[Facts]:
    """Runs of evaluations with one text, as pictures are made: counted from 0."""
    ends = [last for last, _ in schedule]
    for text, run in groupby(range(evaluations), key=lambda step: schedule[stage_at(ends, step)][1]):
        first, *others = run
        yield {"first": first, "last": others[-1] if others else first, "text": text}


def _encoded(parts: Sequence[Said], tokenizer: Any) -> list[Facts]:
    """The different texts, each with its chunks, filled up to as many as the longest of its part has."""
    found: dict[str, list[Facts]] = {}
    for said in parts:
        chunks = {text: tokenizer.chunks(weighted(text)) for text in (*said.texts, *said.others)}
        count = max(map(len, chunks.values()))
        for text in said.texts:
            filled = [*chunks[text], *[Chunk()] * (count - len(chunks[text]))]
            found.setdefault(text, [_facts(chunk, tokenizer) for chunk in filled])
    return [{"text": text, "chunks": chunks} for text, chunks in found.items()]


def _facts(chunk: Chunk, tokenizer: Any) -> Facts:
    words = tokenizer.words(chunk.tokens)
    return {
        "tokens": len(chunk.tokens),
        "room": tokenizer.room,
        "ids": [token if isinstance(token, int) else word for token, word in zip(chunk.tokens, words)],
        "words": words,
        "weights": [round(weight, 6) for weight in chunk.weights],
    }


def _in_words(facts: Facts) -> Iterator[str]:
    parts = facts["parts"]
    for number, part in enumerate(parts, start=1):
        which = f"part {number} of {len(parts)}, " if len(parts) > 1 else ""
        if which or part["weight"] != 1:
            yield f"{which}weight {part['weight']:g}"
        yield from (_run(active, facts["evaluations"]) for active in part["active"])
    chunks = {tuple(chunk["ids"]) for text in facts["encoded"] for chunk in text["chunks"]}
    yield f"encoded: {counted(len(facts['encoded']), 'text')}, {counted(len(chunks), 'different chunk')}"
    for text in facts["encoded"]:
        yield f"  {_shown(text['text'])}"
        yield from (_chunk(chunk) for chunk in text["chunks"])
    for tag in facts["tags"]:
        yield f"tag: {_shown(' '.join((tag['kind'], *tag['arguments'])))}"
    yield from (f"embedding: {_shown(name)}" for name in facts["embeddings"])
    yield from (f"warning: {warning}" for warning in facts["warnings"])


def _shown(text: str) -> str:
    """The text in one line that a terminal can be given."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return shown or "(empty)"


def _run(active: Facts, evaluations: int) -> str:
    width = len(str(evaluations - 1))
    if active["first"] == active["last"]:
        return f"  step  {active['first']:>{width}} {'':{width}}  {_shown(active['text'])}"
    return f"  steps {active['first']:>{width}}-{active['last']:<{width}}  {_shown(active['text'])}"


def _chunk(chunk: Facts) -> str:
    pairs = zip(chunk["words"], chunk["weights"], strict=True)
    runs = [(weight, [word for word, _ in run]) for weight, run in groupby(pairs, key=lambda pair: pair[1])]
    said = " ".join(
        _words(words) if weight == 1 else f"({_words(words)} ×{weight:.4g})" for weight, words in runs
    )
    return f"    {chunk['tokens']} of {chunk['room']} tokens: {_shown(said)}"


def _words(words: Sequence[str]) -> str:
    """Tokens apart, ends of words unmarked: ``ging·er cat``."""
    return "".join(
        f"{word.removesuffix('</w>')}{' ' if word.endswith('</w>') else '·'}" for word in words
    ).strip(" ·")
