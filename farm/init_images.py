"""The files of pictures to start from: found, and read once. What is in them is for `farm.pictures`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.axes import BadValue
from farm.errors import quoted

MAX_BYTES = 64 << 20
"""Of a file."""

SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8", b"II", b"MM")
"""With which files of these kinds begin; more is known when they are opened."""

NO_PICTURE = "is none of PNG, JPEG, WEBP, BMP, GIF and TIFF, which can be read"
"""What is wrong with a file of another kind."""

MAX_TOGETHER = 4 << 30
"""Bytes of a job's files: all are held until it is rendered."""


@dataclass(frozen=True, slots=True)
class InitImage:
    """A picture that a job names.

    Attributes:
        name: its path as the job has it.
        content: of the file.
    """

    name: str
    content: bytes


class InitImages:
    """The pictures of a job, by the SHA-256 of their files; settings name them by it.

    Args:
        folders: in which files are looked for; the first that has one counts. The last is the command's.
    """

    def __init__(self, folders: Sequence[Path] = (Path(),)) -> None:
        self._folders = tuple(folders)
        self._hashes: dict[str, str] = {}
        self._found: dict[str, InitImage] = {}
        self._held = 0

    @property
    def found(self) -> Mapping[str, InitImage]:
        """Those that were read."""
        return self._found

    def read(self, name: str) -> str:
        """The hash of a picture, which is read if it was not yet.

        Args:
            name: its path, as somebody wrote it.

        Raises:
            BadValue: it is not there, or cannot be read, or is no picture that can be used.
        """
        if name not in self._hashes:
            content = _content(path := self._path(name))
            key = hashlib.sha256(content).hexdigest()
            if key not in self._found:
                if not any(map(content.startswith, SIGNATURES)):
                    raise BadValue(f"{quoted(name)} {NO_PICTURE}")
                if self._held + len(content) > MAX_TOGETHER:
                    raise BadValue(f"{path}: with it, the pictures are larger than {MAX_TOGETHER >> 30} GiB")
                self._held += len(content)
                self._found[key] = InitImage(name, content)
            self._hashes[name] = key
        return self._hashes[name]

    def from_root(self, name: str) -> str:
        """How a picture is named from the folder of the command: absolute if it lies elsewhere.

        What is not there keeps its name.
        """
        root = self._folders[-1]
        path = next((folder / name for folder in self._folders if _is_file(folder / name)), root / name)
        if path == root / name:
            return name
        whole, root = path.resolve(), root.resolve()
        return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()

    def _path(self, name: str) -> Path:
        """Of the file.

        Raises:
            BadValue: there is none.
        """
        for path in (folder / name for folder in self._folders):
            if _is_file(path):
                return path
        looked_in = " and ".join(dict.fromkeys(str(folder.resolve()) for folder in self._folders))
        what = "is a folder" if any(_is_folder(folder / name) for folder in self._folders) else "is not there"
        raise BadValue(f"{quoted(name)} {what}; the path of a picture is wanted, as seen from {looked_in}")


def is_no_image(name: str) -> bool:
    """Whether it means that there is no picture; a file called so is `./none`."""
    return name.strip().casefold() in ("", "none")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a NUL in it; a folder that is locked
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadValue(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise BadValue(f"{path}: is larger than {MAX_BYTES >> 20} MiB")
    return content
