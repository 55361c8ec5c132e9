"""What may be written for each setting of a job: its kind and its range; and the reading of values."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from farm.axes import MAX_VALUES, BadValue, split_calls
from farm.cell import DEFAULTS
from farm.diffusers_schedulers import BadScheduler
from farm.document import Items, Text, Written
from farm.errors import quoted
from farm.kinds import MAX_PROMPT_BYTES as MAX_PROMPT_BYTES
from farm.kinds import Choice, ImageFile, Name, Names, Number, Prose, Reading, Setting, Value
from farm.kinds import Seeds as Seeds
from farm.merges import Merge, merge_of, name_of
from farm.misnamed import sampler_hint, schedule_hint
from farm.patch_settings import NONE, PATCH_DEFAULTS
from farm.resolving import MAX_STEPS
from farm.sampling import AUTOMATIC, BUILT_IN

MAX_SEED = 2**63 - 1
_MAX_DELTA = 2**32 - 1
_AUTOMATIC = (AUTOMATIC, "auto")
_HASH = re.compile(r"[0-9a-f]{6,64}")
_WHOLE_HASH = re.compile(r"[0-9a-f]{64}")
_TITLE = re.compile(r"(.+) \[[0-9a-f]{8,64}\]")


def _models(reading: Reading) -> Names:
    return reading.models


def _other_model(wanted: str, reading: Reading) -> str | None:
    """A hash, a title, or a merge, whose name is made of those that its parts have in the catalog."""
    if (found := _named_otherwise(reading.models, wanted)) is not None:
        return found
    if (merge := merge_of(wanted)) is None:
        return None
    parts = tuple(str(SETTINGS["model"].expand([part], 0, reading)[0][1]) for part in merge.parts)
    if inner := next((part for part in parts if part not in reading.models), None):
        raise BadValue(f"{quoted(inner)} is a merge itself; a merge is made of checkpoints that are there")
    return name_of(Merge(parts, merge.method, merge.weight))


def _vaes(reading: Reading) -> Names:
    return {AUTOMATIC: ("auto",), NONE: ("baked",)} | dict(reading.files.get("vae", {}))


def _named_otherwise(names: Names, wanted: str) -> str | None:
    """What the start of a content hash means, or a title of A1111 whose file nobody has hashed yet.

    Raises:
        BadValue: several files' hashes start so.
    """
    folded = wanted.casefold()
    if _HASH.fullmatch(folded):
        found = [name for name, others in names.items() if _hash_of(others).startswith(folded)]
        if len(found) > 1:
            raise BadValue(f"{quoted(wanted)} may be any of {', '.join(map(repr, found))}")
        return found[0] if found else None
    if (title := _TITLE.fullmatch(wanted)) is None:
        return None
    found = [name for name, others in names.items() if title[1] in others and not _hash_of(others)]
    return found[0] if len(found) == 1 else None


def _hash_of(others: Iterable[str]) -> str:
    return next((other for other in others if _WHOLE_HASH.fullmatch(other)), "")


def _samplers(reading: Reading) -> Names:
    return reading.samplers.names


def _sampler_rows(reading: Reading) -> list[str]:
    return [row.name for row in reading.samplers.samplers]


def _other_sampler(wanted: str, reading: Reading) -> str | None:
    try:
        return reading.samplers.find(wanted)[0].name
    except KeyError:
        return _unknown(wanted, reading, sampler_hint(wanted, reading.samplers))
    except BadScheduler as error:
        raise BadValue(str(error)) from error


def _unknown(wanted: str, reading: Reading, hint: str | None) -> str | None:
    """The name itself where a plugin that could not be had may add it: the plugin is the one mistake then."""
    if not reading.complete:
        return wanted
    if hint is not None:
        raise BadValue(f"{quoted(wanted)} is not known; {hint}")
    return None


def _schedules(reading: Reading) -> Names:
    rows = reading.samplers.schedules.values()
    return {AUTOMATIC: ("auto",)} | {row.name: (row.title,) for row in rows}


def _other_schedule(wanted: str, reading: Reading) -> str | None:
    return _unknown(wanted, reading, schedule_hint(wanted))


def _schedule_rows(reading: Reading) -> list[str]:
    return list(reading.samplers.schedules)


def _precisions(_: Reading) -> Names:
    return {"auto": (), "fp32": ("float32",), "fp16": ("float16", "half"), "bf16": ("bfloat16",)}


def _emphases(_: Reading) -> Names:
    return {"original": ("a1111",), "no norm": ("no_norm",), "comfyui": ("compel",), "ignore": ()}


def _generators(_: Reading) -> Names:
    return {"cpu": (), "nv": ("nvidia", "gpu")}


def _of_kind(kind: str) -> Callable[[Reading], Names]:
    """Names of files that need not be used."""
    return lambda reading: {NONE: ()} | dict(reading.files.get(kind, {}))


def _otherwise(kind: str) -> Callable[[str, Reading], str | None]:
    return lambda wanted, reading: _named_otherwise(reading.files.get(kind, {}), wanted)


def _file(kind: str, about: str) -> Name:
    hint = f"farm models {kind} lists them"
    return Name(about, hint, _of_kind(kind), shown=(NONE,), other=_otherwise(kind))


def _several_loras(wanted: str, reading: Reading) -> str | None:
    """What ``inkA:0.8 + inkB`` means, with the names in the catalog."""
    single = SETTINGS["lora"]
    parts = []
    for part in wanted.split(" + "):
        name, _, weight = part.strip().rpartition(":")
        if not name:
            name, weight = weight, "1"
        [(_, number)] = SETTINGS["lora_weight"].expand([weight], 0, reading)
        found = single.expand([name], 0, reading)
        if len(found) > 1 or found[0][1] == NONE:
            raise BadValue(f"{quoted(name)} in {quoted(wanted)} is not a LoRA; name:weight + name:weight")
        parts.append(f"{found[0][1]}:{number:g}")
    return " + ".join(parts)


def _predictions(_: Reading) -> Names:
    return {AUTOMATIC: ("auto",), "epsilon": ("eps",), "v_prediction": ("v",)}


SETTINGS: Mapping[str, Setting] = {
    "model": Name("A checkpoint under models/: name, file name, title in A1111 or hash. Or a merge of some.",
                  "farm models checkpoint lists them", _models, other=_other_model),
    "merge_weight": Number("Of the merge that model is; automatic is as it says.", 0, 1, whole=False,
                           words=_AUTOMATIC),
    "prompt": Prose("What the picture shows."),
    "negative_prompt": Prose("What it should not show."),
    "sampler": Name(
        "A sampler, alone or with its schedule (DPM++ 2M Karras), or diffusers:ClassName(option=value).",
        "farm samplers lists them", _samplers, _sampler_rows,
        [*(row.name for row in BUILT_IN.samplers),
         *(f"{row.name} Karras" for row in BUILT_IN.samplers if row.takes_schedules)],
        _other_sampler, split_calls, "a plugin under plugins: can add more"),
    "steps": Number("Sampling steps.", 1, MAX_STEPS),
    "evaluations": Number(
        "Instead of steps: each sampler makes as many as take at most so many evaluations of the model.",
        1, 10_000),
    "cfg_scale": Number("How strictly the prompt is followed; 1 switches guidance off.", 0, 100, whole=False),
    "seed": Number("Of the noise a picture starts from; random is drawn once.", 0, MAX_SEED, random=True),
    "width": Number("In pixels.", 16, 8192, multiple=8),
    "height": Number("In pixels.", 16, 8192, multiple=8),
    "clip_skip": Number("1 takes the text encoder's last layer, 2 the one before it.", 1, 12),
    "precision": Name("Of the networks; auto is fp16 on a GPU and fp32 on a CPU.", "auto, fp32, fp16 or bf16",
                      _precisions, shown=("auto", "fp32", "fp16", "bf16")),
    "schedule": Name("Of the noise levels; automatic is the sampler's own.", "farm schedules lists them",
                     _schedules, _schedule_rows, (AUTOMATIC, *BUILT_IN.schedules), _other_schedule,
                     more="a plugin under plugins: can add more"),
    "sigma_min": Number("The smallest noise level; automatic is the model's.", 0, 1000, whole=False,
                        above=True, words=_AUTOMATIC),
    "sigma_max": Number("The largest noise level; automatic is the model's.", 0, 1000, whole=False,
                        above=True, words=_AUTOMATIC),
    "rho": Number("Of the karras schedule: how it crowds at small noise levels.", 0, 100, whole=False,
                  above=True),
    "discard_next_to_last_sigma": Choice("Whether one step more is scheduled and its noise level dropped."),
    "eta": Number("How much noise a sampler adds while it samples; automatic is A1111's value for it.", 0, 1,
                  whole=False, words=_AUTOMATIC),
    "s_churn": Number("How much noise Euler, Heun and DPM2 add, over all steps.", 0, 100, whole=False),
    "s_tmin": Number("The smallest noise level at which s_churn adds noise.", 0, 1000, whole=False),
    "s_tmax": Number("The largest noise level at which s_churn adds noise.", 0, 1000, whole=False,
                     words=("no limit", *_AUTOMATIC)),
    "s_noise": Number("Factor of the noise that is added.", 0, 10, whole=False),
    "guidance_rescale": Number("How far guidance keeps the contrast of the guided prediction.", 0, 1,
                               whole=False),
    "negative_guidance_minimum_sigma": Number("Below it, every second evaluation goes without guidance.", 0,
                                              15, whole=False),
    "guidance_stop": Number("Fraction of the evaluations after which guidance is left out.", 0, 1,
                            whole=False),
    "zero_terminal_snr": Choice("Whether training noise levels are rescaled to end in pure noise."),
    "variation_seed": Number("Of the noise that is mixed in.", 0, MAX_SEED, random=True),
    "variation_strength": Number("How much of it is mixed in.", 0, 1, whole=False),
    "eta_noise_seed_delta": Number("Added to the seed for the noise that samplers add.", 0, _MAX_DELTA),
    "seed_resize_from_width": Number("In pixels: noise as in pictures of this width; 0 is off.", 16, 8192,
                                     multiple=8, zero=True),
    "seed_resize_from_height": Number("In pixels: noise as in pictures of this height; 0 is off.", 16, 8192,
                                      multiple=8, zero=True),
    "rng": Name("What makes the noise: as PyTorch on a CPU, or as on an NVIDIA card.", "cpu or nv",
                _generators, shown=("cpu", "nv")),
    "emphasis": Name("What weights in prompts do: as A1111, as it without its mean, as ComfyUI, nothing.",
                     "original, no norm, comfyui or ignore", _emphases,
                     shown=("original", "no norm", "comfyui", "ignore")),
    "token_merging_ratio": Number("Of the tokens that self-attention merges at the highest resolution.", 0,
                                  0.75, whole=False),
    "deepcache_interval": Number("Evaluations that share the UNet's deep features; 1 is off.", 1, 100),
    "deepcache_branch": Number("The skip connection up to which the others are computed; 0 is fastest.", 0,
                               11),
    "init_image": ImageFile("A picture to start from: its path, from the job or the folder of the command."),
    "denoising_strength": Number("How far from the picture it may lead; 0 keeps it, 1 is nearly noise.", 0, 1,
                                 whole=False),
    "vae": Name("Under models/VAE; none is the checkpoint's own, automatic the one beside it, if any.",
                "farm models vae lists them", _vaes, shown=(AUTOMATIC, NONE),
                other=_otherwise("vae")),
    "prediction_type": Name("What the UNet was trained to predict; automatic is as the checkpoint says.",
                            "automatic, epsilon or v_prediction", _predictions,
                            shown=(AUTOMATIC, "epsilon", "v_prediction"), empty=AUTOMATIC),
    "lora": _file("lora", "A LoRA under models/Lora, as <lora:name:lora_weight> at the end of the prompt."),
    "lora_weight": Number("Of that LoRA; 0 leaves it out.", -10, 10, whole=False),
    "loras": Name("Several LoRA with their weights: inkA:0.8 + inkB:0.5.", "farm models lora lists them",
                  lambda _: {NONE: ()}, shown=(NONE,), other=_several_loras, separated=lambda text: [text]),
    "hypernetwork": _file("hypernetwork", "Under models/hypernetworks, as a tag at the end of the prompt."),
    "hypernetwork_strength": Number("Of that hypernetwork; 0 leaves it out.", -10, 10, whole=False),
    "embedding": _file("embedding", "Under embeddings; its name is put behind the prompt."),
    "negative_embedding": _file("embedding", "Under embeddings; its name is put behind the negative prompt."),
}  # fmt: skip
"""The fields of `farm.cell.Settings`, in its order; `evaluations`, which stands for `steps`, `merge_weight`,
which is put into `model`, and what is put into prompts (`farm.patch_settings`)."""

INIT_IMAGE = "init_image"
MERGE_WEIGHT = "merge_weight"

PROMPTS = ("prompt", "negative_prompt")

_NOT_FIELDS = {"evaluations", MERGE_WEIGHT, *PATCH_DEFAULTS}

NEEDED = tuple(name for name in SETTINGS if name not in DEFAULTS and name not in _NOT_FIELDS)
"""Settings that have no default."""


def quotes_hint(name: str, written: Written) -> str:
    """Of a prompt that is a list or a mapping to YAML: how it would have been a text."""
    if name not in PROMPTS or isinstance(written, Text):
        return ""
    sign = "[" if isinstance(written, Items) else "{"
    return f"; a text that begins with {sign} stands in 'quotes'"


def read_values(name: str, items: Sequence[Text], reading: Reading) -> list[Value]:
    """The values of a setting that a list of texts stands for; what is wrong is noted.

    Args:
        name: of the setting.
        items: as written; each may stand for several values.
        reading: what is known, and the place for mistakes.
    """
    setting, parts = SETTINGS[name], []
    for item in items:
        with reading.mistakes.caught(item.place, name):
            parts += [Text.at(item.place, part) for part in setting.split(item, reading)]
    values: list[Value] = []
    for position, part in enumerate(parts):
        with reading.mistakes.caught(part.place, name):
            values += setting.expand(parts, position, reading)
        if len(values) > MAX_VALUES:
            reading.mistakes.add(part.place, f"{name}: more than {MAX_VALUES} values are not allowed")
            return values[:MAX_VALUES]
    return values


def read_value(name: str, item: Written, reading: Reading) -> Value | None:
    """The one value of a setting that a text stands for; None, and a noted mistake, if it is not one."""
    if not isinstance(item, Text):
        kind = "a list" if isinstance(item, Items) else "a mapping"
        what = f"{name}: {kind} is not allowed here; several values belong under sweep"
        reading.mistakes.add(item.place, what + quotes_hint(name, item))
        return None
    values = read_values(name, [item], reading)
    if len(values) > 1:
        what = f"{name}: {quoted(item)} is several values; they belong under sweep"
        reading.mistakes.add(item.place, what)
    return values[0] if len(values) == 1 else None
