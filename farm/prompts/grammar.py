"""The prompt language of A1111, read into a tree.

    prompt       = part {"AND" part}             a negative prompt is one part, and its tags are text
    part         = {item} [":" number]           the weight of a part stands at its end
    item         = text | edit | alternation     wherever tags stand, they are taken out beforehand
    edit         = "[" [{item} ":"] {item} ":" number "]"
    alternation  = "[" {item} ("|" {item})+ "]"
    tag          = "<" word ":" anything ">"

Nothing is an error. A bracket that belongs to no edit and no alternation is text to this grammar, and means
emphasis once it is known what a step's text is (`farm.prompts.emphasis`): ``(cat:[1.2|0.8])`` has a weight
that alternates. Which is which, the lexer finds out (`farm.prompts.brackets`).

- Inside an edit or an alternation every bracket has its partner, and there are no other colons and bars.
- A part with a bar outside of all alternations, or with a backslash before nothing, has no edits at all.

It takes linear time. The rules are A1111's (modules/prompt_parser.py and extra_networks.py of version 1.10),
whose own grammar takes cubic time and is ambiguous where brackets or colons are left over beside an edit: it
answers one way or another there, from one start to the next.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

from lark import Lark, Token, Transformer
from lark.lexer import Lexer

from farm.prompts.brackets import Mark, marks
from farm.prompts.tree import Alternation, Edit, Item, Part, Prompt, Tag

_GRAMMAR = """
    prompt: part (AND part)*
    part: items [WEIGHT]
    items: (TEXT | edit | alternation)*
    edit: EDIT [items COLON] items WHEN
    alternation: ALTERNATION items (BAR items)+ CLOSE
    %declare TEXT AND WEIGHT EDIT COLON WHEN ALTERNATION BAR CLOSE
"""

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r":\s*[-+]?(?:\d+\.?|\d*\.\d+)")
_TAG = re.compile(r"<(\w++):([^>]++)>")
_KEPT = 5000
"""Trees that are kept: the cells of a job ask for the same prompts again and again."""


@lru_cache(_KEPT)
def parse(text: str) -> Prompt:
    """The tree of a prompt; `str` of it is the text."""
    tags: list[Tag] = []
    bare = "".join(_taken_out(text, tags))
    parts = cast(tuple[Part, ...], _PROMPT.parse(bare))
    return Prompt(parts, tuple(tags))


@lru_cache(_KEPT)
def parse_negative(text: str) -> Prompt:
    """The tree of a negative prompt, where A1111 knows neither AND nor tags; `str` of it is the text."""
    return Prompt(cast(tuple[Part, ...], _NEGATIVE.parse(text)))


def _taken_out(text: str, tags: list[Tag]) -> Iterator[str]:
    """The texts between the tags, which are added to `tags`."""
    done, offset, last = 0, 0, text.rfind(">")
    for match in _TAG.finditer(text, 0, last + 1):  # behind the last >, looking for one takes quadratic time
        offset += match.start() - done
        tags.append(Tag(match[1], tuple(match[2].split(":")), offset))
        yield text[done : match.start()]
        done = match.end()
    yield text[done:]


class _PromptLexer(Lexer):
    """The tokens of a prompt without its tags."""

    def __init__(self, lexer_conf: Any) -> None:
        pass

    def lex(self, text: str) -> Iterator[Token]:  # type: ignore[override]
        start = 0
        for between in _AND.finditer(text):
            yield from _part(text[start : between.start()])
            yield Token("AND", between[0])
            start = between.end()
        yield from _part(text[start:])


class _NegativeLexer(_PromptLexer):
    """The tokens of a negative prompt."""

    def lex(self, text: str) -> Iterator[Token]:  # type: ignore[override]
        return _tokens(text)


def _part(text: str) -> Iterator[Token]:
    """The tokens between two ANDs."""
    end = len(text.rstrip())
    colon = text.rfind(":", 0, end)
    if colon >= 0 and _WEIGHT.fullmatch(text, colon, end):
        end = len(text[:colon].rstrip())
    yield from _tokens(text[:end])
    if end < len(text):
        yield Token("WEIGHT", text[end:])


def _tokens(text: str) -> Iterator[Token]:
    done = 0
    for mark in (*marks(text), Mark(len(text), len(text), "")):
        if done < mark.start:
            yield Token("TEXT", text[done : mark.start])
        if mark.kind:
            yield Token(mark.kind, text[mark.start : mark.end])
        done = mark.end


class _Tree(Transformer[Token, Any]):
    """Builds the tree while a text is parsed, so that its depth does not matter."""

    def prompt(self, children: list[Any]) -> tuple[Part, ...]:
        return tuple(child for child in children if isinstance(child, Part))

    def part(self, children: list[Any]) -> Part:
        items, ending = children
        return Part(items, str(ending or ""))

    def items(self, children: list[Any]) -> tuple[Item, ...]:
        return tuple(str(child) if isinstance(child, Token) else child for child in children)

    def edit(self, children: list[Any]) -> Edit:
        _, before, _, after, when = children
        return Edit(before, after, str(when[1:-1]))

    def alternation(self, children: list[Any]) -> Alternation:
        return Alternation(tuple(child for child in children if isinstance(child, tuple)))


def _parser(lexer: type[Lexer]) -> Lark:
    return Lark(
        _GRAMMAR, start="prompt", parser="lalr", lexer=lexer, transformer=_Tree(), maybe_placeholders=True
    )


_PROMPT, _NEGATIVE = _parser(_PromptLexer), _parser(_NegativeLexer)
