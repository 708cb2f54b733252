"""The training of the Hugging Face models: the loop of the PyTorch ones.

Owns the checkpoint's form (`checkpoint/`, of `save_pretrained`). Knows no configuration: a model is whatever
its entry's `build` returns.
"""

from __future__ import annotations

from pathlib import Path

import torch

from lockstep.zoo.batches import Batch
from lockstep.zoo.learning import Learned, Task
from lockstep.zoo.torch_training import fit

CHECKPOINT = "checkpoint"


def learn(task: Task) -> Learned:
    """Train one model; see `lockstep.zoo.learning`."""
    torch.manual_seed(task.entry.recipe.seed)
    model = task.build()

    def logits(batch: Batch) -> torch.Tensor:
        ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
        answer: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
        return answer

    def save(folder: Path) -> str:
        model.save_pretrained(folder / CHECKPOINT)
        return CHECKPOINT

    return fit(task, model, logits, save)
