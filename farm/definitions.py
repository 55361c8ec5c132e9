"""What a job uses of files, defined in the job itself: styles, and wildcards that cells draw from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from farm.axes import Axis
from farm.document import Items, Place, Table, Text, Written
from farm.entries import listed
from farm.init_images import InitImages, is_no_image
from farm.jobfile import table_at
from farm.prompt_sources import CHOICE, STYLE_TEXTS, WILDCARD_FILES, Sources
from farm.prompts.styles import Style
from farm.prompts.wildcards import references
from farm.settings import INIT_IMAGE


def define(
    tree: Table, sources: Sources, axes: Sequence[Axis], styles: Sequence[Style], images: InitImages
) -> bool:
    """Define in a job's tree what it uses of files: styles, and wildcards that cells draw from.

    Pictures are named such that they are found wherever the job lies.

    Args:
        tree: of the job, written out; it is changed.
        sources: of its prompts.
        axes: of the job.
        styles: that the job has at its top.
        images: its pictures.

    Returns:
        Whether there was anything.
    """
    renamed = _rename_images(tree, images)
    return _define(tree, sources, axes, styles) or renamed


def _define(tree: Table, sources: Sources, axes: Sequence[Axis], styles: Sequence[Style]) -> bool:
    on_axes = [axis for axis in axes if axis.name == "styles"]
    used = [*styles, *(style for axis in axes for value in axis.values for style in value.styles)]
    styled = _define_styles(tree, on_axes, {style.name: style for style in used})
    if sources.dynamic != CHOICE:
        return styled
    texts = [*_texts(tree), *(text for style in used for text in (style.prompt, style.negative_prompt))]
    searched = {pair[0] for axis in axes for value in axis.values for pair in value.replaces}
    wildcards = sources.wildcards.reachable(texts, searched).values
    named = {name for text in [*texts, *chain(*wildcards.values())] for name in references(text)}
    if named <= set(table_at(tree, "define_wildcards")) or not sources.wildcard_files:
        return styled
    _put(tree, "define_wildcards", {name: _items(tree.place, each) for name, each in wildcards.items()})
    tree[Text.at(tree.place, WILDCARD_FILES)] = Text.at(tree.place, "false", "bool")
    return True


def _rename_images(tree: Table, images: InitImages) -> bool:
    """Whether any is called otherwise from the folder of the command than it was."""
    found = [(holder, at, images.from_root(holder[at].strip())) for holder, at in _image_names(tree)]
    changed = [(holder, at, name) for holder, at, name in found if name != holder[at].strip()]
    for holder, at, name in changed:
        holder[at] = Text.at(holder[at].place, name)
    return bool(changed)


def _image_names(written: Written, key: str = "") -> Iterator[tuple[Any, Any]]:
    """Where names of pictures stand: what holds them, and where in that."""
    entries: Iterable[tuple[Any, Written]] = ()
    if isinstance(written, Table):
        entries = written.items()
    elif isinstance(written, Items):
        entries = enumerate(written)
    for at, value in entries:
        name = str(at) if isinstance(written, Table) else key
        if name == INIT_IMAGE and isinstance(value, Text):
            if not is_no_image(value):
                yield written, at
        elif name != "plugins":  # whose settings may be called so, too
            yield from _image_names(value, name)


def _define_styles(tree: Table, on_axes: Sequence[Axis], used: Mapping[str, Style]) -> bool:
    sweep = table_at(tree, "sweep")
    titles = [value.title for axis in on_axes for value in axis.values]
    if set(used) <= set(table_at(tree, "define_styles")) and titles == listed(
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


def _texts(written: Written) -> Iterator[str]:
    if isinstance(written, Table):
        yield from (text for value in written.values() for text in _texts(value))
    elif isinstance(written, Items):
        yield from (text for value in written for text in _texts(value))
    else:
        yield str(written)
