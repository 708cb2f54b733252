"""Hugging Face sources: a checkpoint folder of a sequence classifier, as `save_pretrained` writes it.

Read offline and without running any code that the folder may hold: weights are safetensors, the architecture
is the library's own; whatever their type, they are loaded as float32. Becomes a PyTorch source that takes input_ids
and attention_mask, whatever else the architecture wants (token types) being part of the graph.

A classifier may find the end of a row by the padding id (GPT-2, Llama) or at the right edge of the batch (XLNet). So
its artifact sets the ids beyond each row's end to the padding id, and moves rows to the right edge where the model
wants them there, before the model sees them: as for Keras, no answer depends on what stands beyond the end.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.exporters.conversion import ATTENTION_MASK, INPUT_IDS, Ids, Lengths, Outputs, SourceError, SourceFiles
from lockstep.exporters.sources.torch_source import TorchSource

if TYPE_CHECKING:
    import torch

_PROBED = (5, 3)  # tokens of two rows, that show on which side the model can be padded
_REFUSALS = (OSError, ValueError, KeyError, RuntimeError)  # what the library raises for a folder that it cannot load
_APART = 1e-3  # of the largest answer: a model that reads its padding is further off than rounding


class HuggingFaceSource(TorchSource):
    """A checkpoint's model in inference mode."""

    def __init__(self, model: Any, files: SourceFiles) -> None:
        """Make `module`, which is exported, of the author's model, which answers whole rows by itself."""
        self._own = _answering(model, files.weights)
        super().__init__(_sealed(self._own, _padding_id(model, files.pad_id)), (INPUT_IDS, ATTENTION_MASK), files)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of PyTorch and of the library."""
        import transformers

        return {**super().versions, "transformers": str(transformers.__version__)}

    def outputs(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Answer rows of equal length by the author's model alone; others padded in the way that suits it."""
        whole = bool((lengths == ids.shape[1]).all())
        return self.run(self._own if whole else self.module, ids, lengths)


def open_source(files: SourceFiles) -> HuggingFaceSource:
    """Load the checkpoint; raises `SourceError` naming what is at fault."""
    return HuggingFaceSource(load(files.weights), files)


def load(checkpoint: Path) -> Any:
    """Load a checkpoint's classifier in float32 and inference mode; raises `SourceError` naming what is at fault."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not (checkpoint / "config.json").is_file():
        raise SourceError(f"{checkpoint}: no config.json; give the folder that save_pretrained wrote")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trusting = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(str(checkpoint), return_dict=True, **trusting)
    except _REFUSALS as error:
        raise SourceError(f"{checkpoint / 'config.json'}: refused ({_reason(error)})") from error
    try:
        model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            str(checkpoint),
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            **trusting,
        )
    except _REFUSALS as error:
        advice = "" if any(checkpoint.glob("*.safetensors")) else ". Weights must be .safetensors"
        raise SourceError(f"{checkpoint}: refused ({_reason(error)}){advice}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise SourceError(
            f"{checkpoint}: the checkpoint lacks {', '.join(missing[:3])}: is it a fine-tuned classifier?"
        )
    return model.eval().requires_grad_(False)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def authors_tokenizer(checkpoint: Path) -> Any | None:
    """Load the tokenizer as the model's author does; None where the folder holds none that can be loaded."""
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(checkpoint), local_files_only=True, trust_remote_code=False
        )
    except Exception:  # the library raises whatever a foreign file makes it meet; tokenizer.json is read all the same
        return None


def _answering(model: Any, checkpoint: Path) -> torch.nn.Module:
    """Return the model as a module of the two inputs; token types, where it is given any, are all of the first."""
    import torch

    typed = _is_given_token_types(model, checkpoint)

    class Classifier(torch.nn.Module):  # type: ignore[misc]  # the framework has no types here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            more = {"token_type_ids": torch.zeros_like(input_ids)} if typed else {}
            return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).logits

    return Classifier().eval()


def _is_given_token_types(model: Any, checkpoint: Path) -> bool:
    """Return whether the author's code gives the model token types, for a text all 0.

    To most models 0 and none are the same. To GPT-2, whose tokenizer makes none, a type is one more word of the text.
    """
    import torch

    if "token_type_ids" not in inspect.signature(model.forward).parameters:
        return False
    ids = torch.zeros((1, _PROBED[0]), dtype=torch.int64)
    mask = torch.ones_like(ids)
    try:
        with torch.inference_mode():
            none = model(input_ids=ids, attention_mask=mask).logits
            zeros = model(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids)).logits
    except (ValueError, RuntimeError, IndexError):
        return True  # its reference run says why it cannot be run
    if torch.allclose(none, zeros, rtol=_APART, atol=_APART * float(none.abs().max())):
        return True
    tokenizer = authors_tokenizer(checkpoint)
    return tokenizer is not None and "token_type_ids" in tokenizer.model_input_names


def _padding_id(model: Any, tokenizers: int) -> int:
    """Return the id that stands beyond a row's end, having told it to a model that needs one.

    A model without one answers a row alone by its last token, whatever that is. It gets a row of its own in the
    table of embeddings as the padding id, which no text has, and so answers every row of a batch by its last token.
    """
    config = model.config.get_text_config()
    embeddings = model.get_input_embeddings()
    rows = int(embeddings.num_embeddings)
    if config.pad_token_id is not None and 0 <= config.pad_token_id < rows:
        return int(config.pad_token_id)
    config.pad_token_id = None  # -1 stands for none too
    if not _needs_padding_id(model):
        return tokenizers
    model.resize_token_embeddings(rows + 1, mean_resizing=False)
    model.requires_grad_(False)
    model.get_input_embeddings().weight[rows] = 0  # the same each time
    config.pad_token_id = rows
    return rows


def _needs_padding_id(model: Any) -> bool:
    """Return whether the model refuses two rows at once for want of a padding id."""
    import torch

    ids = torch.zeros((2, _PROBED[0]), dtype=torch.int64)
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (ValueError, RuntimeError, IndexError) as error:
        return "padding token" in str(error)  # whatever else it minds, the reference run meets and tells
    return False


def _sealed(model: torch.nn.Module, padding: int) -> torch.nn.Module:
    """Return the model with every row's own tokens alone before its eyes, on the side that suits it."""
    import torch

    class Sealed(torch.nn.Module):  # type: ignore[misc]  # the framework has no types here
        def __init__(self, *, right_aligned: bool) -> None:
            super().__init__()
            self.model = model
            self.right_aligned = right_aligned

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            input_ids = torch.where(attention_mask != 0, input_ids, padding)
            if not self.right_aligned:
                return self.model(input_ids=input_ids, attention_mask=attention_mask)
            length = input_ids.shape[1]
            beyond = (attention_mask == 0).sum(1, keepdim=True)
            source = torch.arange(length, device=input_ids.device).unsqueeze(0) - beyond
            source = torch.where(source < 0, source + length, source)
            # XLNet takes the mask from 1.0, which no converter does with integers.
            mask = attention_mask.gather(1, source).to(torch.float32)
            return self.model(input_ids=input_ids.gather(1, source), attention_mask=mask)

    usual, other = Sealed(right_aligned=False).eval(), Sealed(right_aligned=True).eval()
    return usual if _ignores_padding(usual) or not _ignores_padding(other) else other


def _ignores_padding(sealed: Any) -> bool:
    """Return whether two rows in one batch answer as each does alone; not if the model cannot run them."""
    import torch

    words = sealed.model.model.get_input_embeddings().num_embeddings
    rows = [torch.arange(start, start + tokens) * 7 % words for start, tokens in enumerate(_PROBED)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    try:
        with torch.inference_mode():
            alone = torch.cat([sealed.model(row.unsqueeze(0), torch.ones_like(row).unsqueeze(0)) for row in rows])
            together = sealed(ids, mask)
    except (ValueError, RuntimeError, IndexError):
        return False  # its reference run says why
    return bool((together - alone).abs().max() <= _APART * alone.abs().max())
