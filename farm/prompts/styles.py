"""Styles as in A1111's `styles.csv`: texts that are put around prompts."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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


def styled(text: str, styles: Iterable[str]) -> str:
    """The text with styles around it, one after the other.

    Args:
        text: a prompt or a negative prompt.
        styles: their texts for it; one without ``{prompt}`` goes behind, after a comma.
    """
    for style in styles:
        if _PROMPT in style:
            text = style.replace(_PROMPT, text)
        else:
            text = ", ".join(part for part in (text.strip(), style.strip()) if part)
    return text


def around(text: str) -> str:
    """What a style's text says itself, without the place for the prompt."""
    return text.replace(_PROMPT, "")


def parse_styles(text: str) -> list[Style]:
    """The styles of a `styles.csv`; of those with the same name the last counts.

    Args:
        text: of the file: columns name, prompt and negative_prompt, or in old files name and text.

    Raises:
        BadStyles: if it has no such columns, or is no CSV.
    """
    table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        columns = [column.strip() for column in table.fieldnames or ()]
        table.fieldnames = columns
        if "name" not in columns or not {"prompt", "text"} & set(columns):
            raise BadStyles("has no columns name, prompt and negative_prompt in its first line")
        styles = [_style(row) for row in table if (row.get("name") or "").strip()]
    except csv.Error as error:
        raise BadStyles(f"is not a CSV file: line {table.line_num}: {error}") from error
    return list({style.name: style for style in styles}.values())


def _style(row: Mapping[str, str | None]) -> Style:
    prompt = row["prompt"] if "prompt" in row else row["text"]
    return Style((row["name"] or "").strip(), prompt or "", row.get("negative_prompt") or "")
