"""What is rendered: the article's samplers at CFG scales from 2 on, in the order in which a farm has them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sheet.networks import TINY_CATS
from farm.job import Vocabulary, load_job
from farm.plan import Plan, compile_job

JANUARY = (
    "Euler a", "Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM fast",
    "DPM adaptive", "LMS Karras", "DPM2 Karras", "DPM2 a Karras", "DPM++ 2S a Karras", "DPM++ 2M Karras",
    "DPM++ SDE Karras", "DDIM", "PLMS",
)  # fmt: skip
"""A1111's list of January 2023."""

LEAST_SCALE = 2
"""Below, at 1, a cell has half of the rows."""

JOB = """\
name: sheet
model: {model}
prompt: portrait of beautiful cat
negative_prompt: nudity
width: {pixels}
height: {pixels}
steps: {steps}
seed: 3805052747
precision: {precision}
sweep:
  sampler: [{samplers}]
  cfg_scale: [{scales}]
"""


def sheet(samplers: Sequence[str], scales: int, steps: int, pixels: int, precision: str = "auto") -> Plan:
    """Each sampler at the CFG scales 2, 3, …"""
    text = JOB.format(
        model=TINY_CATS,
        pixels=pixels,
        steps=steps,
        precision=precision,
        samplers=", ".join(samplers),
        scales=", ".join(str(LEAST_SCALE + number) for number in range(scales)),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sheet.yaml"
        path.write_text(text, encoding="utf-8")
        return compile_job(load_job(path, Vocabulary(models={TINY_CATS: ()}, plugins={})))
