"""What can be found out again, kept from one command to the next in the user's cache folder."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

PATIENCE = 2.0
"""Seconds to wait for others that write; then nothing is kept."""


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
        """The whole content; its values may be anything, from other versions or torn."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8")) if self._path else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def update(self, entries: Mapping[str, Any]) -> None:
        """Puts entries beside those that others have written meanwhile."""
        if self._path is None or not entries:
            return
        # as in a container's read-only home, on a full disk, where files cannot be locked
        with suppress(OSError, NotImplementedError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._path.with_suffix(".lock"), timeout=PATIENCE):
                self._replace(json.dumps(self.read() | dict(entries)))

    def _replace(self, content: str) -> None:
        """Whole or not at all; only who holds the lock comes here."""
        assert self._path is not None
        whole = self._path.with_suffix(".tmp")
        try:
            whole.write_text(content, encoding="utf-8")
            whole.replace(self._path)
        finally:
            with suppress(OSError):
                whole.unlink(missing_ok=True)
