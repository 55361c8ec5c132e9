"""How values are written where people read them."""

from farm.cell import SettingValue

_LONGEST = 1e16
"""From here on Python itself writes a float with an exponent, as people do."""


def shown(value: SettingValue) -> str:
    """A value as people write it: 7 rather than 7.0, and nothing for None."""
    if value is None:
        return ""
    plain = isinstance(value, float) and value.is_integer() and abs(value) < _LONGEST
    return str(int(value)) if plain else str(value)
