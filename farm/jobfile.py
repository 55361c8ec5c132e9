"""The shape of a job file: its keys, what they are for, and their JSON Schema."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from farm.cell import DEFAULTS
from farm.document import Items, Mistakes, Table, Text, place_of
from farm.errors import quoted
from farm.kinds import nearest
from farm.patch_settings import PATCH_DEFAULTS
from farm.prompt_axes import MOST_PARTS
from farm.prompt_sources import MAX_PROMPTS, MODES, STYLE_TEXTS
from farm.prompts.dynamic import MOST
from farm.sampling import AUTOMATIC
from farm.settings import MERGE_WEIGHT, NEEDED, PROMPTS, SETTINGS
from farm.written_merges import MERGE_SCHEMA, MODEL

_SCALARS = ["string", "number", "boolean"]
_TEXT: dict[str, Any] = {"type": "string"}
_NAMES = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_MERGE_REFERENCE = {"$ref": "#/$defs/Merge"}


def _schema_of(name: str) -> dict[str, Any]:
    """JSON Schema of one value of a setting."""
    schema = SETTINGS[name].schema()
    return {"anyOf": [schema, _MERGE_REFERENCE]} if name == MODEL else schema


_TITLED = {
    "type": "object",
    "properties": {"title": _TEXT, "styles": _NAMES} | {name: _schema_of(name) for name in SETTINGS},
    "required": ["title"],
    "minProperties": 2,
    "additionalProperties": False,
}
_TITLED_REFERENCE = {"$ref": "#/$defs/TitledValue"}


def _several(value: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of several values: a text in the grammar of values, one value, or a list of these."""
    one = [value, _TEXT] if value != _TEXT else [_TEXT]
    return {"anyOf": [*one, {"type": "array", "items": {"anyOf": [*one, *more]}, "minItems": 1}]}


_LINES = {
    "type": "object",
    "description": "The lines of a text file beside the job, each a value.",
    "properties": {"lines": _TEXT},
    "required": ["lines"],
    "additionalProperties": False,
}
_LINES_REFERENCE = {"$ref": "#/$defs/Lines"}


def _axis(name: str, value: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an axis that is a setting."""
    if name not in PROMPTS:
        return _several(value, *more)
    return {"anyOf": [*_several(value, *more, _LINES_REFERENCE)["anyOf"], _LINES_REFERENCE]}


_ZIP = {
    "type": "object",
    "properties": {name: _axis(name, _schema_of(name)) for name in SETTINGS} | {"styles": _NAMES},
    "additionalProperties": False,
}
_SWEEP = {
    "type": "object",
    "properties": {
        **{name: _axis(name, _schema_of(name), _TITLED_REFERENCE) for name in SETTINGS},
        "replace": {
            "type": "object",
            "description": "Texts searched for in the prompts, each with the texts put in their place.",
            "additionalProperties": {"type": ["string", "number", "array"]},
        },
        "order": {
            "description": "Parts of the prompt, which are put into every order.",
            "type": ["array", "string"],
            "items": {"type": _SCALARS},
            "minItems": 2,
            "maxItems": MOST_PARTS,
        },
        "styles": {"description": "Styles, several joined by +; none; all."} | _NAMES,
        "zip": {
            "description": "Settings whose values go together, one by one, as a single axis.",
            "anyOf": [{"$ref": "#/$defs/Zip"}, {"type": "array", "items": {"$ref": "#/$defs/Zip"}}],
        },
    },
    "additionalProperties": {"type": "array", "items": _TITLED_REFERENCE},
}
_CONDITION = {"type": [*_SCALARS, "array"], "items": {"type": _SCALARS}}
_STYLE = {
    "type": "object",
    "properties": {name: _TEXT for name in STYLE_TEXTS},
    "minProperties": 1,
    "additionalProperties": False,
}
_WILDCARD = {"anyOf": [{"type": _SCALARS}, {"type": "array", "items": {"type": _SCALARS}, "minItems": 1}]}
_MODES = {"enum": [*MODES, False]}
_MOST = {"type": "integer", "minimum": 1, "maximum": MOST, "default": MAX_PROMPTS}
_SEEDS = {"type": "integer", "minimum": 1, "maximum": 10_000}


def _schema(schema: Mapping[str, Any]) -> WithJsonSchema:
    return WithJsonSchema(dict(schema))


def _listed(pages: Any) -> Any:
    return [pages] if isinstance(pages, str) else pages


Pages = Annotated[list[str], BeforeValidator(_listed), _schema(_several({"type": "string"}))]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SheetFile(_Strict):
    """Which axis goes where; what is not placed goes to columns, then rows, then pages."""

    columns: str = Field("", description="The axis that runs to the right.")
    rows: str = Field("", description="The axis that runs down.")
    super_columns: str = Field("", description="The axis for blocks of columns.")
    super_rows: str = Field("", description="The axis for blocks of rows.")
    pages: Pages = Field([], description="Axes with a sheet of their own for each value.")


class _Frame(_Strict):
    """A sweep of Stable Diffusion: base settings, what is swept, the sheet, plugins."""

    name: str = Field("", description="Of the folder under results/; the file's own name if it is not given.")
    seeds: Annotated[Any, _schema(_SEEDS)] = Field(
        None, description="How many pictures of each, with seed, seed + 1, …; an axis called seed."
    )
    sweep: dict[str, Any] = Field(
        {}, description="Axes: a setting with its values, replace, order, styles, zip, or a name of your own."
    )
    styles: Annotated[Any, _schema(_NAMES)] = Field(
        None, description="Styles that all prompts have around them, one after the other."
    )
    define_styles: Annotated[dict[str, Any], _schema({"additionalProperties": _STYLE})] = Field(
        {}, description="Styles of this job, beside those of styles.csv: a prompt, a negative_prompt or both."
    )
    dynamic_prompts: Annotated[Any, _schema(_MODES)] = Field(
        None, description="{a|b} and __wildcard__ in prompts: off, an axis of all, or a choice for each seed."
    )
    max_prompts: Annotated[Any, _schema(_MOST)] = Field(
        None, description="Of an axis that dynamic prompts become."
    )
    define_wildcards: Annotated[dict[str, Any], _schema({"additionalProperties": _WILDCARD})] = Field(
        {}, description="Wildcards of this job, beside the files under wildcards: names with lists of texts."
    )
    wildcard_files: Annotated[Any, _schema({"type": "boolean", "default": True})] = Field(
        None, description="Whether wildcards are looked for in files, too; false in jobs written by farm."
    )
    skip: Annotated[list[Any], _schema({"type": "array", "items": {"additionalProperties": _CONDITION}})] = (
        Field([], description="Rules; a combination for which all conditions of one hold is left out.")
    )
    sheet: SheetFile = Field(SheetFile(), description="Which axis goes where on the sheet.")
    plugins: Annotated[dict[str, Any], _schema({"additionalProperties": {"type": ["object", "null"]}})] = (
        Field({}, description="Plugins by name with their settings, in the order in which they act.")
    )
    drawn_seeds: Annotated[list[Any], _schema({"type": "array", "items": {"type": "integer"}})] = Field(
        [], description="Written by farm: the seeds that random stood for, in order."
    )


def _default(name: str) -> Any:
    """As it is written; None where there is none."""
    if name in NEEDED or name == "evaluations":
        return None
    default = {**DEFAULTS, **PATCH_DEFAULTS, MERGE_WEIGHT: None}[name]
    return AUTOMATIC if default is None else default


_SETTING_FIELDS: dict[str, Any] = {
    name: (Annotated[Any, _schema(row.schema())], Field(_default(name), description=row.about))
    for name, row in SETTINGS.items()
}
JobFile: type[BaseModel] = create_model("JobFile", __base__=_Frame, __doc__=_Frame.__doc__, **_SETTING_FIELDS)
"""A job as it is asked for. It checks the shape; the values are read by `farm.settings` and `farm.sweep`."""

_WRITTEN_BY_US = "drawn_seeds"

_WANTED = {
    "dict_type": "a mapping is wanted",
    "model_type": "a mapping is wanted",
    "list_type": "a list is wanted",
    "string_type": "a text is wanted",
}


def check_shape(tree: Table, mistakes: Mistakes) -> None:
    """Note unknown keys, and entries that are no mapping, list or text where one is wanted."""
    given = {key: value for key, value in tree.items() if value != ""}
    try:
        JobFile.model_validate(given)
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_context=False):
            mistakes.add(place_of(tree, entry["loc"]), _complaint(entry["type"], entry["loc"], entry["msg"]))


_MEANT = dict.fromkeys(("size", "resolution"), "; did you mean 'width' and 'height'?")
"""Of keys that are no typing mistakes."""


def _complaint(kind: str, path: tuple[int | str, ...], message: str) -> str:
    *parents, name = path
    where = ".".join(map(str, parents))
    if kind == "extra_forbidden":
        allowed = [key for key in (SheetFile if parents else JobFile).model_fields if key != _WRITTEN_BY_US]
        meant = "" if parents else _MEANT.get(str(name).casefold(), "")
        near = meant or nearest(str(name), allowed) or _listing(allowed)
        return f"{where or 'a job'} has no key {quoted(str(name))}{near}"
    return f"{'.'.join(map(str, path))}: {_WANTED.get(kind, message)}"


def _listing(allowed: Iterable[str]) -> str:
    return f"; there are {', '.join(allowed)}"


def table_at(tree: Table, key: str) -> Table:
    """The mapping under a key; an empty one if there is none (what else stands there is noted elsewhere)."""
    found = tree.get(Text(key))
    if isinstance(found, Table):
        return found
    empty = Table()
    empty.place = tree.place
    return empty


def list_at(tree: Table, key: str) -> Items:
    """The list under a key; an empty one if there is none (what else stands there is noted elsewhere)."""
    found = tree.get(Text(key))
    return found if isinstance(found, Items) else Items()


def job_schema() -> dict[str, Any]:
    """JSON Schema of job files, for editors that complete and check while somebody types."""
    schema = JobFile.model_json_schema()
    schema["properties"]["sweep"] |= _SWEEP
    said = schema["properties"][MODEL]["description"]
    schema["properties"][MODEL] = {"description": said} | _schema_of(MODEL)
    schema["$defs"] |= {"TitledValue": _TITLED, "Zip": _ZIP, "Lines": _LINES, "Merge": MERGE_SCHEMA}
    for described in (schema, schema["$defs"]["SheetFile"]):
        for entry in described["properties"].values():
            entry.pop("title", None)
            if entry.get("default", 0) in (None, "", [], {}):
                del entry["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
