"""The models of the zoo, by id: what each is, where its code is and how it is trained.

Owns the list. A new model is a new entry here, and a `build` function in its family's file. Imports no
framework: code is named by `package.module:function` and by module name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from exporters.source import Framework


@dataclass(frozen=True, slots=True)
class Family:
    """What the models of one framework share: the module that trains them, the packages that decide how.

    `training` is a module of the form that `zoo.learning` describes.
    """

    framework: Framework
    training: str
    packages: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()  # of the training process
    needs_build: bool = True  # whether the saved weights say nothing of the architecture


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained. The seed decides first weights, dropout and the order of the texts."""

    epochs: int
    learning_rate: float
    weight_decay: float = 0.0
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the zoo. `layer` is for people; `build` makes the untrained model, without arguments."""

    id: str
    family: Family
    layer: str
    build: str
    recipe: Recipe

    @property
    def module(self) -> str:
        """The module that `build` names."""
        return self.build.partition(":")[0]


class UnknownModel(KeyError):
    """No entry has this id."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no model {self.name!r} in the zoo; it holds {', '.join(ENTRIES)}"


# Keras may be set to another backend; on a machine with a GPU the CPU is still what gives the same numbers
# as elsewhere; and TensorFlow prints lines about both unless told not to.
_ON_TENSORFLOW = (
    ("KERAS_BACKEND", "tensorflow"),
    ("CUDA_VISIBLE_DEVICES", "-1"),
    ("TF_CPP_MIN_LOG_LEVEL", "3"),
)

# Threads that spin while they wait cost a shared machine ten times what they gain.
TORCH = Family(Framework.TORCH, "zoo.torch_training", ("torch",), (("OMP_WAIT_POLICY", "PASSIVE"),))
KERAS = Family(
    Framework.KERAS,
    "zoo.keras_training",
    ("keras", "tensorflow"),
    _ON_TENSORFLOW,
    needs_build=False,
)
TF2 = Family(Framework.TF2, "zoo.tf2_training", ("tensorflow", "keras"), _ON_TENSORFLOW)

ENTRIES = MappingProxyType(
    {
        entry.id: entry
        for entry in (
            Entry("torch-bilstm", TORCH, "BiLSTM", "zoo.torch_models:bilstm", Recipe(3, 2e-3)),
            Entry(
                "torch-transformer",
                TORCH,
                "Transformer",
                "zoo.torch_models:transformer",
                Recipe(4, 1e-3, weight_decay=1e-2),
            ),
            Entry("keras-bigru", KERAS, "BiGRU", "zoo.keras_models:bigru", Recipe(3, 2e-3)),
            Entry("tf2-lstm", TF2, "LSTM", "zoo.tf2_models:lstm", Recipe(4, 2e-3)),
        )
    }
)


def select(ids: Iterable[str]) -> tuple[Entry, ...]:
    """Return the entries of `ids` in their order, each once; all of them for none. Raises `UnknownModel`."""
    wanted = tuple(dict.fromkeys(ids))
    for name in wanted:
        if name not in ENTRIES:
            raise UnknownModel(name)
    return tuple(ENTRIES[name] for name in wanted) if wanted else tuple(ENTRIES.values())
