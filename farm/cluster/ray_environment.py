"""Sets what Ray reads from the environment when it is imported; what somebody has set before stays."""

import os
import sys
from pathlib import Path

_WANTED = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a render farm phones nobody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about its default
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # on stdout, and our notices say it
}
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def _has_token() -> bool:
    """Whether this person has a token of Ray's, in the places where Ray looks."""
    return any(name in os.environ for name in _TOKENS) or (Path.home() / ".ray" / "auth_token").is_file()


for _name, _value in _WANTED.items():
    os.environ.setdefault(_name, _value)
if _has_token() and "ray" not in sys.modules:  # a Ray that is imported already has made up its mind
    # `ray start` asks for it as soon as there is one, but who joins by an address sends none by default.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
