"""What the library dynamicprompts must not see of a text, hidden from it and shown again.

It has its own opinion of characters that mean nothing to it in people's prompts, or something else in the
prompt language of A1111: ``|`` inside square brackets, ``$`` and ``%`` before anything but a brace, ``#``,
``//`` and ``/*``, ``__`` that stands alone in a tag such as ``<lora:a__b:1>``, tabs. Its signs ``~``, ``!``
and ``@`` before variants choose how these are sampled; here the job says that, so they are taken away. So are
comments: lines that begin with ``#``.
"""

import re
from collections.abc import Iterator

WRAP = "__"
"""Around the name of a wildcard."""

_COMMENT = re.compile(r"^[ \t]*#.*$\n?", re.MULTILINE)
_TAG = re.compile(r"<\w+:[^<>{}]*>")
_SIGN = re.compile(r"(\{\s*|__)[~!@]")
_HIDING = str.maketrans("|$%#/\t_", "\1\2\3\4\5\6\7")
_SHOWING = str.maketrans("\1\2\3\4\5\6\7", "|$%#/\t_")
_HIDDEN_WRAP = WRAP.translate(_HIDING)
_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])


def printable(text: str) -> str:
    """The text without control characters, which no job file can hold; tabs and line breaks stay."""
    return text.translate(_CONTROLS)


def is_dynamic(text: str) -> bool:
    """Whether there is anything in the text that the syntax knows; if not, the text is left as it is."""
    return "{" in text or WRAP in text


def hidden(text: str) -> str:
    """The text as the library is given it."""
    text = _SIGN.sub(r"\1", _COMMENT.sub("", printable(text)))
    text = tags_hidden(text)
    return "".join(_hidden_characters(text, _square(text)))


def tags_hidden(text: str) -> str:
    """The text without the ``__`` that stand alone in tags."""
    return _TAG.sub(_tag_hidden, text)


def _tag_hidden(tag: re.Match[str]) -> str:
    return tag[0].replace(WRAP, _HIDDEN_WRAP) if tag[0].count(WRAP) % 2 else tag[0]


def shown(text: str) -> str:
    """The text that `hidden` was given, or what became of it."""
    return text.translate(_SHOWING)


def _hidden_characters(text: str, square: set[int]) -> Iterator[str]:
    inside: list[str] = []
    index = 0
    while index < len(text):
        sign, pair = text[index], text[index : index + 2]
        if sign == "{" or index in square and sign == "[":
            inside.append(sign)
        elif inside and (sign == "}" and inside[-1] == "{" or index in square and sign == "]"):
            inside.pop()
        if pair == "$$" and inside[-1:] == ["{"]:
            yield pair
            index += 2
            continue
        yield sign.translate(_HIDING) if _is_foreign(pair, inside) else sign
        index += 1


def _is_foreign(pair: str, inside: list[str]) -> bool:
    """Whether the first of two characters would mean something to the library that it does not mean here."""
    match pair[0]:
        case "|":
            return inside[-1:] == ["["]
        case "$" | "%":
            return pair[1:] != "{"
        case "/":
            return pair[1:] in ("/", "*")
    return pair[0] in "#\t"


def _square(text: str) -> set[int]:
    """Where square brackets stand that open and close within the same braces."""
    found: set[int] = set()
    opened: list[int] = []
    braces = 0
    for match in re.finditer(r"\\.|[\[\]{}]", text, re.DOTALL):
        sign, index = match[0], match.start()
        if sign in "[{":
            opened.append(index)
            braces += sign == "{"
        elif sign == "]" and opened and text[opened[-1]] == "[":
            found |= {opened.pop(), index}
        elif sign == "}" and braces:
            while text[opened.pop()] != "{":
                pass
            braces -= 1
    return found
