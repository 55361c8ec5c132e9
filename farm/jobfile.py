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
from farm.sampling import AUTOMATIC
from farm.settings import NEEDED, SETTINGS

_TEXT = {"type": "string"}
_TITLED = {
    "type": "object",
    "properties": {"title": _TEXT} | {name: row.schema() for name, row in SETTINGS.items()},
    "required": ["title"],
    "minProperties": 2,
    "additionalProperties": False,
}
_TITLED_REFERENCE = {"$ref": "#/$defs/TitledValue"}


def _several(value: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of several values: a text in the grammar of values, one value, or a list of these."""
    one = [value, _TEXT] if value != _TEXT else [_TEXT]
    return {"anyOf": [*one, {"type": "array", "items": {"anyOf": [*one, *more]}, "minItems": 1}]}


_ZIP = {
    "type": "object",
    "properties": {name: _several(row.schema()) for name, row in SETTINGS.items()},
    "additionalProperties": False,
}
_SWEEP = {
    "type": "object",
    "properties": {
        **{name: _several(row.schema(), _TITLED_REFERENCE) for name, row in SETTINGS.items()},
        "replace": {
            "type": "object",
            "description": "Texts searched for in the prompts, each with the texts put in their place.",
            "additionalProperties": {"type": ["string", "number", "array"]},
        },
        "zip": {
            "description": "Settings whose values go together, one by one, as a single axis.",
            "anyOf": [{"$ref": "#/$defs/Zip"}, {"type": "array", "items": {"$ref": "#/$defs/Zip"}}],
        },
    },
    "additionalProperties": {"type": "array", "items": _TITLED_REFERENCE},
}
_SCALARS = ["string", "number", "boolean"]
_CONDITION = {"type": [*_SCALARS, "array"], "items": {"type": _SCALARS}}
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
        {}, description="Axes: a setting's name with its values, replace, zip, or a name of your own."
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
    return AUTOMATIC if DEFAULTS[name] is None else DEFAULTS[name]


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


def _complaint(kind: str, path: tuple[int | str, ...], message: str) -> str:
    *parents, name = path
    where = ".".join(map(str, parents))
    if kind == "extra_forbidden":
        allowed = [key for key in (SheetFile if parents else JobFile).model_fields if key != _WRITTEN_BY_US]
        near = nearest(str(name), allowed) or _listing(allowed)
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
    schema["$defs"] |= {"TitledValue": _TITLED, "Zip": _ZIP}
    for described in (schema, schema["$defs"]["SheetFile"]):
        for entry in described["properties"].values():
            entry.pop("title", None)
            if entry.get("default", 0) in (None, "", [], {}):
                del entry["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
