"""What both converters of PyTorch sources need to capture a graph: an example, free axes, labelled answers.

Turns a captured graph's failure into advice. For a process of its own: a switch of torch's is turned off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.exporters.conversion import LENGTHS, OPENERS, ConversionError, ExportError, SourceFiles, resolve
from lockstep.exporters.sources.torch_source import TorchSource, labelled
from lockstep.exporters.standins.recurrence import UnsupportedRecurrence

if TYPE_CHECKING:
    import torch

# Two sizes that are neither 0 nor 1 nor equal to each other: capturing specialises on such.
_EXAMPLE_ROWS, _EXAMPLE_TOKENS = 3, 7

_FROZEN = re.compile(
    r"specialized|user-specified ranges|Constraints violated|data.dependent|ConstraintViolation", re.IGNORECASE
)
_ADVICE = (
    "the code fixes the size of an axis while its graph is captured: a Python loop over the steps of a batch, or a "
    "number taken out of a tensor (`.item()`, `.tolist()`, `int(...)`, `max(lengths)`), does that. Run a cell over the "
    "steps by `lockstep.exporters.standins.recurrent_loop.run_cell`, or use nn.RNN, nn.GRU or nn.LSTM, and keep "
    "sizes as `x.shape[i]`"
)


@dataclass(frozen=True, slots=True)
class Capturable:
    """A source with an example of its inputs and the axes of each that are free."""

    files: SourceFiles
    source: TorchSource
    example: dict[str, torch.Tensor]
    columns: int  # of its answer

    @property
    def axes(self) -> tuple[dict[int, Any], ...]:
        """Which axes of each input may have any size."""
        import torch

        free = torch.export.Dim.DYNAMIC  # unlike AUTO, refuses where the code would freeze it
        return tuple({0: free} if name == LENGTHS else {0: free, 1: free} for name in self.example)

    def labelled(self, module: torch.nn.Module) -> torch.nn.Module:
        """Return the module with inputs by position, in the example's order, and its answer as [batch, labels]."""
        import torch

        names, files = tuple(self.example), self.files

        class Labelled(torch.nn.Module):  # type: ignore[misc]  # the framework has no types here
            def __init__(self) -> None:
                super().__init__()
                self.source = module

            def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
                return labelled(self.source(**dict(zip(names, inputs, strict=True))), files)

        return Labelled().eval()


def capturable(files: SourceFiles) -> Capturable:
    """Open the source and run it once; raises `SourceError`."""
    import torch

    source: TorchSource = resolve(OPENERS[files.framework])(files)
    tokens = min(_EXAMPLE_TOKENS, files.max_tokens)
    ids = np.full((_EXAMPLE_ROWS, tokens), files.pad_id, dtype=np.int64)
    example = source.feeds(ids, np.full(_EXAMPLE_ROWS, tokens, dtype=np.int64))
    with torch.inference_mode():
        answer = source.module(**example)
    return Capturable(files, source, example, int(answer.shape[1]) if answer.dim() == 2 else 1)


@contextmanager
def captured() -> Iterator[None]:
    """Raise what capturing raises as `ConversionError`, with advice where the code froze an axis."""
    import torch

    # The fast path of TransformerEncoderLayer is one operator that no converter knows.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UnsupportedRecurrence):
                raise ConversionError(str(cause)) from error
            if isinstance(cause, ExportError):
                raise cause from None
            if _FROZEN.search(str(cause)):
                raise ConversionError(_ADVICE) from error
            cause = cause.__cause__ or cause.__context__
        raise
