"""Sets what Ray reads from the environment when it is imported; what somebody has set before stays."""

import os

_WANTED = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a render farm phones nobody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about its default
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # on stdout, and our notices say it
}
for _name, _value in _WANTED.items():
    os.environ.setdefault(_name, _value)
