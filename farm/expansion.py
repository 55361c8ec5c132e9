"""What a job's file leaves to be written out: lines of files, dynamic prompts that become axes.

It is written into the job's tree, so that whoever reads on sees lists of texts, and so that the job as it was
run says everything itself; what it still uses of files is put there by `farm.definitions`.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from pathlib import Path

from farm.document import Items, Mistakes, Table, Text, Written
from farm.entries import listed
from farm.prompt_sources import AXIS, Sources, is_lines, read_lines
from farm.prompts.differing import differing
from farm.prompts.dynamic import MOST, DynamicPrompts
from farm.prompts.hiding import is_dynamic
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


def _lined(sweep: Table, folder: Path, mistakes: Mistakes) -> bool:
    """Put the lines of files where `lines` stands; whether there is any."""
    zipped = sweep.get(Text("zip"))
    tables = [sweep, *(zipped if isinstance(zipped, Items) else [zipped])]
    found = False
    for table in (table for table in tables if isinstance(table, Table)):
        for key, written in table.items():
            if key not in PROMPTS or not any(map(is_lines, listed(written))):
                continue
            items = Items()
            items.place = written.place
            for entry in listed(written):
                items += _lines(entry, folder, mistakes) if is_lines(entry) else [entry]
            table[key] = items or _left(written)
            found = True
    return found


def _left(written: Written) -> Written:
    """One of the files without a line, which stands for an axis in which nothing is right."""
    return next(entry for entry in listed(written) if is_lines(entry))


def _lines(written: Written, folder: Path, mistakes: Mistakes) -> list[Text]:
    [name] = written.values() if isinstance(written, Table) else [written]
    if isinstance(name, Text):
        return read_lines(name, folder, mistakes)
    mistakes.add(name.place, "lines: the name of a file is wanted")
    return []


class _Multiplying:
    """Turns dynamic prompts into axes."""

    def __init__(self, tree: Table, sources: Sources, mistakes: Mistakes) -> None:
        self._tree = tree
        self._most = sources.most
        self._reader = DynamicPrompts(sources.wildcards)
        self._mistakes = mistakes
        self._found = False
        self._became: dict[tuple[str, str], list[Text]] = {}

    def done(self) -> bool:
        """Do it; whether there was any."""
        sweep = self._tree.get(Text("sweep"))
        if isinstance(sweep, Table):
            self._swept(sweep)
        for name in PROMPTS:
            text = self._tree.get(Text(name))
            if isinstance(text, Text) and is_dynamic(text):
                self._base(name, text)
        for rule in listed(self._tree.get(Text("skip"), Items())):
            self._reword(rule)
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
                for table in listed(written):
                    self._refuse_zipped(table)
            elif key in PROMPTS or isinstance(written, Items):
                sweep[key] = self._listed(key, written)

    def _reword(self, rule: Written) -> None:
        """In a rule that drops combinations, put what a text or title became in its place."""
        if not isinstance(rule, Table):
            return
        for key, written in rule.items():
            reworded = Items(each for entry in listed(written) for each in self._now(key, entry))
            reworded.place = written.place
            if reworded != listed(written):
                rule[key] = reworded

    def _now(self, name: str, entry: Written) -> Sequence[Written]:
        found = self._became.get((str(name), entry.strip())) if isinstance(entry, Text) else None
        return found or [entry]

    def _refuse_zipped(self, table: Written) -> None:
        for key, written in table.items() if isinstance(table, Table) else ():
            for text in listed(written) if key in PROMPTS else ():
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
        if other := _setter_of(name, sweep):
            setter = "sweep has" if other == name else f"the axis {other!r} sets"
            what = f"it has variants, which become an axis, but {setter} {name} already"
            self._mistakes.add(text.place, f"{name}: {what}")
            return
        del self._tree[Text(name)]
        sweep[Text.at(place, name)] = texts

    def _listed(self, name: str, written: Written) -> Written:
        """What stands for a value or a list of values, every dynamic prompt in it multiplied out."""
        items = Items()
        items.place = written.place
        for entry in listed(written):
            items += self._each(name, entry, MOST + 1 - min(len(items), MOST))
        if len(items) > self._most and items != listed(written):
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
            texts = [Text.at(entry.place, text) for text in self._variants(name, entry, most)]
            self._became[name, entry.strip()] = texts
            return texts
        if isinstance(entry, Table):
            return list(self._tables(name, entry, most))
        return [entry]

    def _variants(self, name: str, text: Text, most: int) -> list[str]:
        self._found = True
        try:
            return self._reader.variants(text, most)
        except BadDynamic as error:
            for what in error.faults:
                self._mistakes.add(text.place, f"{name}: {what}")
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
            title = table.get(Text("title"))
            if len(rows) > 1 and isinstance(title, Text):
                retitled = Text.at(title.place, f"{title}: {told}")
                made.update({key: retitled for key in table if key == "title"})
                self._became.setdefault((name, title.strip()), []).append(retitled)
            yield made


def _setter_of(name: str, sweep: Table) -> str | None:
    """The axis that sets a setting already."""
    for key, written in sweep.items():
        if key == name or key != "replace" and _sets(name, written):
            return str(key)
    return None


def _sets(name: str, written: Written) -> bool:
    return any(isinstance(entry, Table) and name in entry for entry in listed(written))
