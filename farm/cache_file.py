"""What can be found out again, kept from one command to the next in the user's cache folder."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path


def cache_path(name: str) -> Path:
    """Of a file of the user's cache folder."""
    return user_cache_path("farm-sd") / name


class CacheFile:
    """A JSON object in a file that several processes write to.

    A file that is absent, torn or cannot be written is no error: then the next command finds out again.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        """The whole content."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8")) if self._path else {}
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def update(self, entries: Mapping[str, Any]) -> None:
        """Puts entries beside those that others have written meanwhile."""
        if self._path is None:
            return
        whole = self._path.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):  # as in a container's read-only home
            self._path.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text(json.dumps(self.read() | dict(entries)), encoding="utf-8")
            whole.replace(self._path)
