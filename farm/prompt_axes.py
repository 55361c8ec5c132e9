"""Axes that change prompts: search and replace, prompt order, styles."""

from collections.abc import Sequence
from itertools import permutations

from farm.axes import AxisValue, BadValue, split_names
from farm.document import Items, Table, Text, Written
from farm.entries import Swept, axis_at, texts_in
from farm.errors import quoted
from farm.kinds import Reading, nearest
from farm.prompt_sources import ALL, NONE
from farm.prompts.styles import Style

MOST_PARTS = 7
"""That are put into every order: 5040 of them."""


def replace_axes(key: Text, written: Written, reading: Reading) -> list[Swept]:
    """An axis for each text searched for; what is wrong is noted."""
    if not isinstance(written, Table):
        what = "replace: searched texts with what is put in their place, as in {cat: [cat, dog]}"
        reading.mistakes.add(written.place, what)
        return []
    found: list[Swept] = []
    for searched, texts in written.items():
        if not searched:
            reading.mistakes.add(searched.place, "replace: the text searched for is empty")
            continue
        puts = texts_in(f"replace {searched}", texts, reading)
        values = [AxisValue(str(put) or "(nothing)", {}, ((str(searched), str(put)),)) for put in puts]
        found += axis_at(searched.place, f"replace {searched}", values)
    return found


def order_axis(key: Text, written: Written, reading: Reading) -> list[Swept]:
    """The axis `order`: the parts in every order, that in which they are written first."""
    parts: list[str] = []
    before = len(reading.mistakes)
    for text in _names(key, written, reading):
        if not text or text in parts:
            what = f"{quoted(text)} stands here twice" if text else "an empty part is not allowed"
            reading.mistakes.add(text.place, f"order: {what}")
        parts.append(str(text))
    if len(reading.mistakes) == before and not 2 <= len(parts) <= MOST_PARTS:
        what = f"{len(parts)} parts are not allowed; 2 to {MOST_PARTS} parts of the prompt are"
        reading.mistakes.add(key.place, f"order: {what}")
    if len(reading.mistakes) != before:
        return axis_at(key.place, str(key))
    between = " · " if any("," in part for part in parts) else ", "
    orders = permutations(parts)
    return axis_at(key.place, str(key), [AxisValue(between.join(each), order=each) for each in orders])


def styles_axis(key: Text, written: Written, reading: Reading) -> list[Swept]:
    """The axis `styles`: each value one style, several that are joined by +, or none."""
    values: list[AxisValue] = []
    for text in _names(key, written, reading):
        if text.casefold() == ALL:
            each = [(style,) for style in reading.styles.named.values()]
            if not each:
                reading.mistakes.add(text.place, f"styles: there are none ({reading.styles.looked_in})")
            values += [AxisValue(_title(styles), styles=styles) for styles in each]
        elif (styles := _joined(text, reading)) is not None:
            values.append(AxisValue(_title(styles), styles=styles))
    return axis_at(key.place, str(key), values)


def read_styles(name: str, written: Written, reading: Reading) -> tuple[Style, ...]:
    """The styles of a list, one after the other; what is wrong is noted.

    Args:
        name: of what they stand in.
        written: as written.
        reading: what is known, and the place for mistakes.
    """
    texts = _names(name, written, reading)
    for text in texts:
        if text.casefold() == ALL and ALL not in reading.styles.named:
            what = "all is each of them, one by one: an axis, which belongs under sweep as `styles: all`"
            reading.mistakes.add(text.place, f"styles: {what}")
    joined = [_joined(text, reading) for text in texts if text.casefold() != ALL]
    return tuple(style for styles in joined if styles for style in styles)


def _title(styles: Sequence[Style]) -> str:
    return " + ".join(style.name for style in styles) or NONE


def _joined(text: Text, reading: Reading) -> tuple[Style, ...] | None:
    """The styles of ``cinematic + film``; None, and noted mistakes, if there is one that is not known."""
    known = reading.styles.named
    if text.casefold() in ("", NONE):
        return ()
    names = [text] if text in known else [name.strip() for name in text.split("+")]
    found: list[Style] = []
    for name in names:
        style = known.get(name) or next((known[each] for each in known if _alike(each, name)), None)
        if style is None:
            what = f"{quoted(name)} is not known{nearest(name, known)} ({reading.styles.looked_in})"
            reading.mistakes.add(text.place, f"styles: {what}")
        else:
            found.append(style)
    return tuple(found) if len(found) == len(names) else None


def _alike(name: str, other: str) -> bool:
    return name.casefold() == other.casefold()


def _names(name: str, written: Written, reading: Reading) -> list[Text]:
    """The names in a list, or in one text where they are separated by commas."""
    texts = texts_in(name, written, reading)
    if isinstance(written, Items) or not texts or texts[0] in reading.styles.named:
        return [Text.at(text.place, text.strip()) for text in texts]
    try:
        return [Text.at(texts[0].place, part) for part in split_names(texts[0])]
    except BadValue as mistake:
        reading.mistakes.add(texts[0].place, f"{name}: {mistake}")
        return []
