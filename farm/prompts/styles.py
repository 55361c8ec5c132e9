"""Styles as in A1111's `styles.csv`: texts that are put around prompts."""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from farm.prompts.replacing import TooLong

_PROMPT = "{prompt}"


class BadStyles(ValueError):
    """A file that is no table of styles; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Style:
    """What is put around a prompt.

    Attributes:
        name: what people call it by.
        prompt: for the prompt; where it has ``{prompt}`` in it, the prompt stands there.
        negative_prompt: the same for the negative prompt.
    """

    name: str
    prompt: str = ""
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True)
class Styles:
    """The styles that a job can name.

    Attributes:
        named: by their names.
        looked_in: where they are looked for, in words.
    """

    named: Mapping[str, Style] = field(default_factory=dict)
    looked_in: str = ""


def styled(text: str, styles: Iterable[str], most: int | None = None) -> str:
    """The text with styles around it, one after the other.

    Args:
        text: a prompt or a negative prompt.
        styles: their texts for it; one without ``{prompt}`` goes behind, after a comma.
        most: characters that may come of it.

    Raises:
        TooLong: if more would.
    """
    for style in styles:
        if most is not None and len(around(style)) + style.count(_PROMPT) * len(text) > most:
            raise TooLong
        if _PROMPT in style:
            text = style.replace(_PROMPT, text)
        else:
            text = ", ".join(part for part in (text.strip(), style.strip()) if part)
    return text


def pieces(text: str) -> list[str]:
    """What a style's text says before and behind the place for the prompt; all of it if there is none."""
    return text.split(_PROMPT)


def around(text: str) -> str:
    """What a style's text says itself, without the place for the prompt."""
    return "".join(pieces(text))


class Oddity(NamedTuple):
    """What looks like a mistake in a `styles.csv`: the style, the line in which its row ends, what is odd."""

    style: str
    line: int
    what: str


def parse_styles(text: str) -> tuple[list[Style], list[Oddity]]:
    """The styles of a `styles.csv`, and what looks odd; of those with the same name the last counts.

    Args:
        text: of the file: columns name, prompt and negative_prompt, or in old files name and text.

    Raises:
        BadStyles: if it has no such columns, or is no CSV.
    """
    if line := _unclosed(text):
        raise BadStyles(f"has a quote in line {line} that is never closed")
    table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        columns = [column.strip() for column in table.fieldnames or ()]
        table.fieldnames = columns
        if "name" not in columns or not {"prompt", "text"} & set(columns):
            raise BadStyles("has no columns name, prompt and negative_prompt in its first line")
        styles: dict[str, Style] = {}
        oddities: list[Oddity] = []
        for row in table:
            style = _style(row)
            oddities += [Oddity(style.name, table.line_num, what) for what in _odd(style, row, styles)]
            styles |= {style.name: style} if style.name else {}
    except csv.Error as error:
        raise BadStyles(f"is not a CSV file: line {table.line_num}: {error}") from error
    return list(styles.values()), oddities


_END = ["the", "end"]


def _unclosed(text: str) -> int:
    """The line in which a row begins that has a quote which is never closed; 0 if there is none."""
    probe = io.StringIO(f'{text}\n"\n{",".join(_END)}', newline="")  # the quote closes the open one, or opens
    table = csv.reader(probe, skipinitialspace=True)
    ends, last = [0], [""]
    try:
        for last in table:  # noqa: B007 - what it is in the end is asked for
            ends.append(table.line_num)
    except csv.Error:
        return 0
    return ends[-3] + 1 if last == _END else 0


def _odd(style: Style, row: Mapping[str, object], known: Collection[str]) -> Iterator[str]:
    if style.name in known:
        yield "stands there twice; the last one counts"
    if None in row:
        yield "has more columns than the first line; a text with a comma in it stands in double quotes"


def _style(row: Mapping[str, str | None]) -> Style:
    prompt = row["prompt"] if "prompt" in row else row["text"]
    return Style((row["name"] or "").strip(), prompt or "", row.get("negative_prompt") or "")
