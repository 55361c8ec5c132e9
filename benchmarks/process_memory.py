"""How much of the machine's memory this process has, what it mapped of files included."""

import platform
import resource
from pathlib import Path

KIB = 1024
STATUS = Path("/proc/self/status")
"""Linux's; there, what a process is told of its peak otherwise begins with that of its parent."""


def held() -> int:
    """Bytes of this process in memory now."""
    return _said("VmRSS") if STATUS.exists() else peak()


def peak() -> int:
    """Bytes that it had at most."""
    if STATUS.exists():
        return _said("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * KIB


def _said(name: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) * KIB
