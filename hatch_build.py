"""What a wheel carries beside the package: an editable install has it in the checkout already."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("plugins", "jobs", "models", "cluster.yaml")


class ShippedFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the built-in plugins, example jobs and the included model into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatch before it builds; `version` is `standard` or `editable`."""
        if version == "standard":
            build_data["force_include"] |= {name: f"farm/shipped/{name}" for name in SHIPPED}
