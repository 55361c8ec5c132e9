"""What a job's prompts are made of beside its own texts: styles, wildcards, lines of files."""

import re
from collections import ChainMap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.document import Items, Mistakes, Place, Table, Text, Written, place_of, read_text
from farm.entries import listed
from farm.errors import BadInput, Problem, quoted
from farm.kinds import MAX_PROMPT_BYTES, nearest
from farm.prompts.dynamic import MOST
from farm.prompts.hiding import printable
from farm.prompts.styles import BadStyles, Style, Styles, parse_styles
from farm.prompts.wildcards import Wildcards, read_wildcards

OFF, CHOICE, AXIS = "off", "choice", "axis"
MODES = (OFF, CHOICE, AXIS)
MAX_PROMPTS = 1000
"""Texts that dynamic prompts may become an axis of, unless the job says otherwise."""

LINES = "lines"
ALL, NONE = "all", "none"
"""Instead of the names of styles."""

WILDCARD_FILES = "wildcard_files"
"""Says whether wildcards are looked for in files; a job that was written out has all of them itself."""

STYLES_FILE = "styles.csv"
WILDCARDS_FOLDER = "wildcards"
STYLE_TEXTS = ("prompt", "negative_prompt")

_Odd = tuple[Place, str, str]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where prompts come from.

    Attributes:
        dynamic: one of `MODES`, what is done with dynamic prompts.
        most: texts that they may become an axis of.
        styles: that there are.
        wildcards: that there are.
        styles_place: where the job names styles.
        defined: the names of styles that the job itself defines.
        oddities: of styles in `styles.csv`: where, which, and what is odd.
        wildcard_files: whether wildcards are looked for in files.
    """

    dynamic: str
    most: int
    styles: Styles
    wildcards: Wildcards
    styles_place: Place
    defined: frozenset[str] = frozenset()
    oddities: tuple[_Odd, ...] = ()
    wildcard_files: bool = True


def read_sources(tree: Table, folders: Sequence[Path], mistakes: Mistakes) -> Sources:
    """What a job says about its sources; what is wrong is noted.

    Args:
        tree: of the job.
        folders: in which files are looked for; the first that has them counts.
        mistakes: takes what is wrong.
    """
    dynamic = _mode(tree, mistakes)
    sweep = tree.get(Text("sweep"))
    place = place_of(tree, ("styles",) if Text("styles") in tree else ("sweep", "styles"))
    styled = Text("styles") in tree or (isinstance(sweep, Table) and _names_styles(sweep))
    defined = _defined_styles(tree, mistakes)
    styles, odd = _styles(folders if styled else [], defined)
    files = _uses_files(tree, mistakes)
    wildcards = _wildcards(tree, folders if files and dynamic != OFF else [], mistakes)
    names = frozenset(style.name for style in defined)
    return Sources(dynamic, _most(tree, mistakes), styles, wildcards, place, names, tuple(odd), files)


def _uses_files(tree: Table, mistakes: Mistakes) -> bool:
    written = tree.get(Text(WILDCARD_FILES), Text())
    if isinstance(written, Text) and written.casefold() in ("", "true", "false"):
        return written.casefold() != "false"
    mistakes.add(written.place, f"{WILDCARD_FILES}: true or false is wanted")
    return True


def _names_styles(written: Written) -> bool:
    """Whether styles are named anywhere in it: on an axis of their own, in a titled value, under zip."""
    if isinstance(written, Table):
        return Text("styles") in written or any(map(_names_styles, written.values()))
    return isinstance(written, Items) and any(map(_names_styles, written))


def is_lines(written: Written) -> bool:
    """Whether it is a mapping that stands for the lines of a file."""
    return isinstance(written, Table) and set(written) == {LINES}


def read_lines(written: Text, folder: Path, mistakes: Mistakes) -> list[Text]:
    """The lines of a file, without blank ones and those that begin with #; none, and a noted mistake, if bad.

    Args:
        written: the file's name as it stands in the job.
        folder: of the job.
        mistakes: takes what is wrong.
    """
    path = folder / written
    try:
        lines = re.split(r"\r\n?|\n", printable(_read_regular(path))) if written else []
    except BadInput as error:
        for problem in error.problems:
            mistakes.add(written.place, f"lines: {problem}")
        return []
    found = [
        Text.at(Place(number, str(path)), line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        what = f"{path} has no line with a text" if written else "the name of a file is wanted"
        mistakes.add(written.place, f"lines: {what}")
    return found


def _read_regular(path: Path) -> str:
    """The text of a file, but not of a pipe or a device, which may never end.

    Raises:
        BadInput: if it is none, or cannot be read.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise BadInput([Problem(str(path), "is not a regular file")])
    return read_text(path)


def _mode(tree: Table, mistakes: Mistakes) -> str:
    written = tree.get(Text("dynamic_prompts"), Text())
    allowed = f"{', '.join(MODES[:-1])} or {MODES[-1]}"
    if not isinstance(written, Text):
        mistakes.add(written.place, f"dynamic_prompts: one word is wanted; {allowed}")
        return OFF
    if written.casefold() in ("", "false", "no"):
        return OFF
    if written.casefold() not in MODES:
        what = f"{quoted(written)} is not allowed; {allowed}"
        mistakes.add(written.place, f"dynamic_prompts: {what}{nearest(written, MODES)}")
        return OFF
    return written.casefold()


def _most(tree: Table, mistakes: Mistakes) -> int:
    written = tree.get(Text("max_prompts"), Text())
    allowed = f"a whole number from 1 to {MOST}"
    if not isinstance(written, Text):
        mistakes.add(written.place, f"max_prompts: {allowed} is wanted")
    if not isinstance(written, Text) or not written:
        return MAX_PROMPTS
    number = int(written[:6]) if written.isascii() and written.isdigit() else 0
    if not 1 <= number <= MOST:
        mistakes.add(written.place, f"max_prompts: {written} is not allowed; {allowed}")
        return MOST
    return number


def _styles(folders: Iterable[Path], defined: Sequence[Style]) -> tuple[Styles, list[_Odd]]:
    """The styles that a job can name, and what is odd about those of a file."""
    path = next((folder / STYLES_FILE for folder in folders if (folder / STYLES_FILE).is_file()), None)
    files = str(path or f"{STYLES_FILE} beside the job or in the folder of the command")
    found: list[Style] = []
    odd: list[_Odd] = []
    if path is not None:
        try:
            found, oddities = parse_styles(printable(_read_regular(path)))
            odd = [(Place(line, str(path)), name, what) for name, line, what in oddities]
        except BadInput as error:
            files = str(error)
        except BadStyles as error:
            files = f"{path}, which {error}"
    named = {style.name: style for style in (*found, *defined) if not _is_reserved(style.name)}
    return Styles(named, f"styles are looked for under define_styles and in {files}"), odd


def _defined_styles(tree: Table, mistakes: Mistakes) -> list[Style]:
    table = tree.get(Text("define_styles"))
    found: list[Style] = []
    for name, written in table.items() if isinstance(table, Table) else ():
        if _is_reserved(name):
            what = f"{quoted(name)} is not allowed as a name; all and none mean something else"
            mistakes.add(name.place, f"define_styles: {what}")
        if not isinstance(written, Table) or not written:
            what = "a mapping with a prompt, a negative_prompt or both is wanted"
            mistakes.add(name.place, f"define_styles: {quoted(name)}: {what}")
            written = Table()
        texts = {str(key): _style_text(key, text, mistakes) for key, text in written.items()}
        found.append(Style(str(name), texts.get("prompt", ""), texts.get("negative_prompt", "")))
    return found


def _is_reserved(name: str) -> bool:
    return name.strip().casefold() in ("", ALL, NONE)


def _style_text(key: Text, written: Written, mistakes: Mistakes) -> str:
    if key not in STYLE_TEXTS:
        mistakes.add(key.place, f"define_styles: {key} is not known; prompt and negative_prompt are")
    elif not isinstance(written, Text):
        mistakes.add(written.place, f"define_styles: {key}: a text is wanted")
    elif len(written.encode(errors="replace")) > MAX_PROMPT_BYTES:
        mistakes.add(written.place, f"define_styles: {key}: more than {MAX_PROMPT_BYTES} bytes")
    else:
        return str(written)
    return ""


def _wildcards(tree: Table, folders: Iterable[Path], mistakes: Mistakes) -> Wildcards:
    path = next(
        (folder / WILDCARDS_FOLDER for folder in folders if (folder / WILDCARDS_FOLDER).is_dir()), None
    )
    found, lines, complaints = read_wildcards(path) if path is not None else ({}, {}, [])
    table = tree.get(Text("define_wildcards"))
    defined = {
        str(name): _defined_values(name, written, mistakes)
        for name, written in (table.items() if isinstance(table, Table) else ())
    }
    files = str(path or f"a folder {WILDCARDS_FOLDER} beside the job or in that of the command")
    looked_in = "; ".join([f"define_wildcards and {files}", *complaints[:3]])
    lines = {name: file for name, file in lines.items() if name not in defined}
    return Wildcards(ChainMap(defined, found), looked_in, lines)  # type: ignore[arg-type]


def _defined_values(name: Text, written: Written, mistakes: Mistakes) -> tuple[str, ...]:
    entries = listed(written)
    if not entries or not all(isinstance(entry, Text) and entry.tag != "null" for entry in entries):
        mistakes.add(name.place, f"define_wildcards: {quoted(name)}: a list of texts is wanted")
    return tuple(str(entry).strip() for entry in entries if isinstance(entry, Text))
