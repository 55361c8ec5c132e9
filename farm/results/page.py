"""What the pages have in common: their parts, and the policy that lets nothing else in."""

import base64
import hashlib
from importlib.resources import files

PAGE = "index.html"


def asset(name: str) -> str:
    """A template, style or script that lies beside this module."""
    return files("farm.results").joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str = "") -> str:
    """A content security policy that admits this style, this script, and pictures beside the page."""
    scripts = f"script-src {_digest(script)}; " if script else ""
    rules = f"style-src {_digest(style)}; {scripts}img-src 'self' file:"
    return f"default-src 'none'; {rules}; base-uri 'none'; form-action 'none'"


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
