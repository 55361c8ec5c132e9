"""Where things lie: the folders a person works in, and what is shipped with the package."""

from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped() -> Path:
    """The folder with the shipped plugins/, jobs/ and models/: inside a wheel, or the checkout itself."""
    inside = _PACKAGE / "shipped"
    return inside if inside.is_dir() else _PACKAGE.parent


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with models/, plugins/, jobs/ and results/, each of which may be absent.

    Attributes:
        root: the folder that commands are run in.
        models: more folders of models, of other programs.
    """

    root: Path
    models: tuple[Path, ...] = ()

    @property
    def results(self) -> Path:
        """Where jobs leave their results, one folder each."""
        return self.root / "results"

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """Where checkpoints are looked for: the workspace's own first, then others, then the shipped ones."""
        return _existing(self.root / "models", *self.models, shipped() / "models")

    @property
    def plugin_folders(self) -> tuple[Path, ...]:
        """Where plugin files are looked for: the shipped ones first, so that the workspace's own override."""
        return _existing(shipped() / "plugins", self.root / "plugins")


def _existing(*folders: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))
