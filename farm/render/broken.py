"""Pictures that are none: numbers that overflowed on the way, mostly at half precision."""

from enum import Enum

from farm.errors import CellFailed


class Fault(Enum):
    """What is wrong with a picture."""

    ENCODED = "the encoded picture holds NaN or infinite values"
    LATENTS = "the latents hold NaN or infinite values"
    PICTURE = "the picture holds NaN or infinite values"
    BLACK = "the picture is black all over"


class Broken(CellFailed):
    """There is nothing to be seen.

    Args:
        fault: what is wrong.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault
