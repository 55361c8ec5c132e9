"""The names that pickles of weights may mention; whatever else one mentions is refused, and never imported.

As `torch.save` and the trainers of 2022 and 2023 wrote them, a module and a name with a space between them.
"""

from farm.weights.tensor_info import ITEM_SIZES

STORAGES = {
    "torch BoolStorage": "bool", "torch ByteStorage": "uint8", "torch CharStorage": "int8",
    "torch ShortStorage": "int16", "torch IntStorage": "int32", "torch LongStorage": "int64",
    "torch HalfStorage": "float16", "torch BFloat16Storage": "bfloat16", "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64", "torch ComplexFloatStorage": "complex64",
    "torch.storage UntypedStorage": "uint8",
}  # fmt: skip
"""Classes of storages, and the type of their elements."""

DTYPES = {f"torch {dtype}" for dtype in ITEM_SIZES}

CALLBACKS = {
    f"{package}.callbacks.{name}"
    for package in ("pytorch_lightning", "lightning.pytorch")
    for name in (
        "model_checkpoint ModelCheckpoint",
        "early_stopping EarlyStopping",
        "lr_monitor LearningRateMonitor",
        "stochastic_weight_avg StochasticWeightAveraging",
        "timer Timer",
    )
}
"""Whose states Lightning keeps beside the weights, under the class itself or as an object of it."""

PARAMETER_DICTS = {"torch.nn.modules.container ParameterDict", "torch.nn.parameter ParameterDict"}
"""In which the first textual inversions hold their vectors."""

NUMPY_DTYPE = "numpy dtype"
NUMPY_SCALARS = {"numpy.core.multiarray scalar", "numpy._core.multiarray scalar"}
"""numpy was rearranged in its version 2."""

SETS = {"__builtin__ set", "builtins set"}
ENCODE = "_codecs encode"
"""How the pickle protocol of `torch.save` writes bytes."""

ORDERED_DICT = "collections OrderedDict"


def written_out(name: str) -> str:
    """As people know it: with a dot between module and name."""
    return name.replace(" ", ".", 1)
