"""Looking at the files of a catalog: what each is, by its header, once for as long as nobody writes to it."""

from pathlib import Path

from farm.cache_file import CacheFile, cache_path
from farm.errors import FarmError
from farm.weights.catalog import PICTURES, Entry
from farm.weights.contents import BadFile, read_contents
from farm.weights.diffusers_folder import SCHEDULER_CONFIG, UNET_CONFIG, config_in, pipeline_of
from farm.weights.facts import Facts, as_json, from_json
from farm.weights.hashes import stamp
from farm.weights.original_config import config_beside
from farm.weights.places import Kind
from farm.weights.recognition import recognized

VERSION = 2
"""Raised when more or other things are seen in the same file."""

FAMILY_OF_PIPELINE = {"StableDiffusionXL": "sdxl", "StableDiffusion": ""}
"""By the beginning of its class' name; empty where its UNet tells."""


class Looking:
    """Looks at files, and remembers what they are.

    Args:
        cache: the JSON file that remembers it; by default in the user's cache folder.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = CacheFile(cache or cache_path("models.json"))
        self._known = self._cache.read()
        self._new: dict[str, object] = {}

    def at(self, entry: Entry) -> Facts:
        """What an entry is; the reason as its fault where that cannot be found out."""
        if entry.path.is_dir():
            return _of_folder(entry.path)
        try:
            key = self._key(entry.path)
        except OSError as error:
            return Facts(fault=f"cannot be read: {error.strerror or error}")
        facts = from_json(self._known.get(key))
        if facts is None:
            facts = _of_file(entry.path)
            self._known[key] = self._new[key] = as_json(facts)
        return facts

    def remember(self) -> None:
        """Keep what was seen for the next command."""
        self._cache.update(self._new)
        self._new.clear()

    def _key(self, path: Path) -> str:
        beside = [other for other in (config_beside(path), path.with_suffix(".json")) if other.is_file()]
        return "|".join([str(VERSION), *(stamp(file) for file in (path, *beside))])


def _of_file(path: Path) -> Facts:
    if path.suffix.lower() in PICTURES:
        return Facts(Kind.EMBEDDING)
    try:
        return recognized(read_contents(path), path)
    except BadFile as error:
        return Facts(fault=str(error).removeprefix(f"{path}: "))


def _of_folder(path: Path) -> Facts:
    try:
        pipeline = pipeline_of(path)
        unet = config_in(path, UNET_CONFIG)
        scheduler = config_in(path, SCHEDULER_CONFIG)
    except FarmError as error:
        return Facts(Kind.CHECKPOINT, fault=str(error))
    named = next((name for start, name in FAMILY_OF_PIPELINE.items() if pipeline.startswith(start)), None)
    if named is None:
        return Facts(Kind.CHECKPOINT, fault=f"it is a {pipeline}, which is not supported")
    family = named or ("sd2" if unet.get("use_linear_projection") else "sd1")
    if scheduler.get("prediction_type") == "v_prediction":
        family += "-v"
    elif family == "sd2":
        family += "-eps"
    return Facts(Kind.CHECKPOINT, f"{family}-inpainting" if unet.get("in_channels") == 9 else family)
