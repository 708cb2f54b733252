"""Hugging Face sources: a checkpoint folder of a sequence classifier, as `save_pretrained` writes it.

Read offline and without running any code that the folder may hold: weights are safetensors, the architecture
is the library's own. Becomes a PyTorch source that takes input_ids and attention_mask, whatever else the
architecture wants (token types) being part of the graph.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

from lockstep.exporters.conversion import ATTENTION_MASK, INPUT_IDS, SourceError, SourceFiles
from lockstep.exporters.torch_source import TorchSource

if TYPE_CHECKING:
    import torch


class HuggingFaceSource(TorchSource):
    """A checkpoint's model in inference mode."""

    @property
    def versions(self) -> dict[str, str]:
        """The versions of PyTorch and of the library."""
        import transformers

        return {**super().versions, "transformers": str(transformers.__version__)}


def open_source(files: SourceFiles) -> HuggingFaceSource:
    """Load the checkpoint; raises `SourceError` naming what is at fault."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not (files.weights / "config.json").is_file():
        raise SourceError(f"{files.weights}: no config.json; give the folder that save_pretrained wrote")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            str(files.weights),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceError(f"{files.weights}: refused ({reason}). Weights must be .safetensors") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise SourceError(
            f"{files.weights}: the checkpoint lacks {', '.join(missing[:3])}: is it a fine-tuned classifier?"
        )
    model.eval().requires_grad_(False)
    return HuggingFaceSource(_named(model), (INPUT_IDS, ATTENTION_MASK), files)


def _named(model: Any) -> torch.nn.Module:
    """Return the model as a module of the two inputs; token types, where it takes any, are all of the first."""
    import torch

    typed = "token_type_ids" in inspect.signature(model.forward).parameters

    class Classifier(torch.nn.Module):  # type: ignore[misc]  # the framework has no types here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            more = {"token_type_ids": torch.zeros_like(input_ids)} if typed else {}
            return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).logits

    return Classifier().eval()
