"""What a job's file leaves to be written out: lines of files, dynamic prompts that become axes.

It is written into the job's tree, so that whoever reads on sees lists of texts, and so that the job as it was
run says everything itself; what it still uses of files is defined there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path

from farm.axes import Axis
from farm.document import Items, Mistakes, Place, Table, Text, Written
from farm.prompt_sources import AXIS, CHOICE, STYLE_TEXTS, Sources, is_lines, read_lines
from farm.prompts.differing import differing
from farm.prompts.dynamic import MOST, DynamicPrompts
from farm.prompts.hiding import is_dynamic
from farm.prompts.styles import Style
from farm.prompts.wildcards import BadDynamic
from farm.settings import PROMPTS


def write_out(tree: Table, sources: Sources, folder: Path, mistakes: Mistakes) -> bool:
    """Write out what a job leaves to be written out; what is wrong is noted.

    Args:
        tree: of the job; it is changed.
        sources: of its prompts.
        folder: of its file.
        mistakes: takes what is wrong.

    Returns:
        Whether there was anything.
    """
    sweep = tree.get(Text("sweep"))
    lined = _lined(sweep, folder, mistakes) if isinstance(sweep, Table) else False
    multiplied = _Multiplying(tree, sources, mistakes).done() if sources.dynamic == AXIS else False
    return lined or multiplied


def define(tree: Table, sources: Sources, axes: Sequence[Axis], styles: Sequence[Style]) -> bool:
    """Define in a job's tree what it uses of files: styles, and wildcards that cells draw from.

    Args:
        tree: of the job, written out; it is changed.
        sources: of its prompts.
        axes: of the job.
        styles: that the job has at its top.

    Returns:
        Whether there was anything.
    """
    on_axes = [axis for axis in axes if axis.name == "styles"]
    used = [*styles, *(style for axis in on_axes for value in axis.values for style in value.styles)]
    styled = _define_styles(tree, on_axes, {style.name: style for style in used})
    if sources.dynamic != CHOICE:
        return styled
    texts = [*_texts(tree), *(text for style in used for text in (style.prompt, style.negative_prompt))]
    searched = {pair[0] for axis in axes for value in axis.values for pair in value.replaces}
    wildcards = sources.wildcards.reachable(texts, searched).values
    if set(wildcards) <= set(_table(tree, "define_wildcards")):
        return styled
    _put(tree, "define_wildcards", {name: _items(tree.place, each) for name, each in wildcards.items()})
    return True


def _define_styles(tree: Table, on_axes: Sequence[Axis], used: Mapping[str, Style]) -> bool:
    sweep = _table(tree, "sweep")
    titles = [value.title for axis in on_axes for value in axis.values]
    if set(used) <= set(_table(tree, "define_styles")) and titles == _entries(
        sweep.get(Text("styles"), Items())
    ):
        return False
    if on_axes:
        sweep[Text("styles")] = _items(tree.place, titles)
    _put(tree, "define_styles", {name: _style_table(tree.place, style) for name, style in used.items()})
    return True


def _style_table(place: Place, style: Style) -> Table:
    table = Table()
    table.place = place
    for name in STYLE_TEXTS:
        table[Text.at(place, name)] = Text.at(place, getattr(style, name))
    return table


def _items(place: Place, texts: Iterable[str]) -> Items:
    items = Items(Text.at(place, text) for text in texts)
    items.place = place
    return items


def _put(tree: Table, key: str, values: Mapping[str, Written]) -> None:
    table = Table({Text.at(tree.place, name): value for name, value in values.items()})
    table.place = tree.place
    tree[Text.at(tree.place, key)] = table


def _table(tree: Table, key: str) -> Table:
    found = tree.get(Text(key))
    return found if isinstance(found, Table) else Table()


def _texts(written: Written) -> Iterator[str]:
    if isinstance(written, Table):
        yield from (text for value in written.values() for text in _texts(value))
    elif isinstance(written, Items):
        yield from (text for value in written for text in _texts(value))
    else:
        yield str(written)


def _lined(sweep: Table, folder: Path, mistakes: Mistakes) -> bool:
    """Put the lines of files where `lines` stands; whether there is any."""
    zipped = sweep.get(Text("zip"))
    tables = [sweep, *(zipped if isinstance(zipped, Items) else [zipped])]
    found = False
    for table in (table for table in tables if isinstance(table, Table)):
        for key, written in table.items():
            if key not in PROMPTS or not any(map(is_lines, _entries(written))):
                continue
            items = Items()
            items.place = written.place
            for entry in _entries(written):
                items += _lines(entry, folder, mistakes) if is_lines(entry) else [entry]
            table[key] = items or _left(written)
            found = True
    return found


def _left(written: Written) -> Written:
    """One of the files without a line, which stands for an axis in which nothing is right."""
    return next(entry for entry in _entries(written) if is_lines(entry))


def _lines(written: Written, folder: Path, mistakes: Mistakes) -> list[Text]:
    for name in written.values() if isinstance(written, Table) else ():
        if isinstance(name, Text):
            return read_lines(name, folder, mistakes)
        mistakes.add(name.place, "lines: the name of a file is wanted")
    return []


def _entries(written: Written) -> list[Written]:
    return list(written) if isinstance(written, Items) else [written]


class _Multiplying:
    """Turns dynamic prompts into axes."""

    def __init__(self, tree: Table, sources: Sources, mistakes: Mistakes) -> None:
        self._tree = tree
        self._most = sources.most
        self._reader = DynamicPrompts(sources.wildcards)
        self._mistakes = mistakes
        self._found = False

    def done(self) -> bool:
        """Do it; whether there was any."""
        sweep = self._tree.get(Text("sweep"))
        if isinstance(sweep, Table):
            self._swept(sweep)
        for name in PROMPTS:
            text = self._tree.get(Text(name))
            if isinstance(text, Text) and is_dynamic(text):
                self._base(name, text)
        if self._found:
            for key in ("dynamic_prompts", "max_prompts", "define_wildcards"):
                self._tree.pop(Text(key), None)
        return self._found

    def _swept(self, sweep: Table) -> None:
        for key, written in sweep.items():
            if key == "replace" and isinstance(written, Table):
                for searched, puts in written.items():
                    written[searched] = self._listed(f"replace {searched}", puts)
            elif key == "zip":
                for table in _entries(written):
                    self._refuse_zipped(table)
            elif key in PROMPTS or isinstance(written, Items):
                sweep[key] = self._listed(key, written)

    def _refuse_zipped(self, table: Written) -> None:
        for key, written in table.items() if isinstance(table, Table) else ():
            for text in _entries(written) if key in PROMPTS else ():
                if isinstance(text, Text) and is_dynamic(text):
                    what = "what has variants cannot be zipped; `dynamic_prompts: choice` draws one for each"
                    self._mistakes.add(text.place, f"zip: {key}: {what} picture")

    def _base(self, name: str, text: Text) -> None:
        place = next(key.place for key in self._tree if key == name)
        before = len(self._mistakes)
        texts = self._listed(name, text)
        if isinstance(texts, Text) and len(self._mistakes) == before:
            self._tree[Text(name)] = texts
            return
        sweep = self._tree.get(Text("sweep"))
        if not isinstance(sweep, Table):
            sweep = Table()
            sweep.place = place
            self._tree[Text.at(place, "sweep")] = sweep
        if name in sweep:
            what = f"it has variants, which become an axis, but sweep has {name} already"
            self._mistakes.add(text.place, f"{name}: {what}")
            return
        del self._tree[Text(name)]
        sweep[Text.at(place, name)] = texts

    def _listed(self, name: str, written: Written) -> Written:
        """What stands for a value or a list of values, every dynamic prompt in it multiplied out."""
        items = Items()
        items.place = written.place
        for entry in _entries(written):
            items += self._each(name, entry, MOST + 1 - min(len(items), MOST))
        if len(items) > self._most and items != _entries(written):
            self._mistakes.add(written.place, f"{name}: {self._too_many(len(items))}")
            del items[self._most :]
        return items if len(items) > 1 or isinstance(written, Items) else items[0]

    def _too_many(self, count: int) -> str:
        less = "or `dynamic_prompts: choice` to have one drawn for each picture"
        if count > MOST:
            return (
                f"more than {MOST:,} prompts come of this, which are too many; write less in braces, {less}"
            )
        return (
            f"{count} prompts come of this; at most {self._most} are allowed, unless you write "
            f"`max_prompts: {count}` to have them all, {less}"
        )

    def _each(self, name: str, entry: Written, most: int) -> Sequence[Written]:
        if isinstance(entry, Text) and is_dynamic(entry) and (name in PROMPTS or name.startswith("replace ")):
            return [Text.at(entry.place, text) for text in self._variants(name, entry, most)]
        if isinstance(entry, Table):
            return list(self._tables(name, entry, most))
        return [entry]

    def _variants(self, name: str, text: Text, most: int) -> list[str]:
        self._found = True
        try:
            return self._reader.variants(text, most)
        except BadDynamic as error:
            self._mistakes.add(text.place, f"{name}: {error}")
            return [str(text)]

    def _tables(self, name: str, table: Table, most: int) -> Iterator[Table]:
        """A titled value for each of the texts that stand in one."""
        columns = {
            key: self._variants(name, text, most)
            for key, text in table.items()
            if key in PROMPTS and isinstance(text, Text) and is_dynamic(text)
        }
        rows = list(product(*columns.values())) if prod(map(len, columns.values())) <= MOST else []
        if not rows:
            self._mistakes.add(table.place, f"{name}: {self._too_many(MOST + 1)}")
        for row, told in zip(rows, differing([", ".join(row) for row in rows]), strict=True):
            made = Table(table)
            made.place = table.place
            made.update({key: Text.at(key.place, text) for key, text in zip(columns, row, strict=True)})
            if len(rows) > 1:
                made.update({key: _retitled(old, told) for key, old in table.items() if key == "title"})
            yield made


def _retitled(title: Written, told: str) -> Written:
    return Text.at(title.place, f"{title}: {told}") if isinstance(title, Text) else title
