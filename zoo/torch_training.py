"""The training loop of the PyTorch models.

Owns the optimiser and the checkpoint's form (`weights.safetensors`). Knows no architecture: a model is
whatever its entry's `build` returns.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_model
from torch import nn
from torch.nn.functional import cross_entropy

from lockstep.zoo.batches import Batch, accuracy, shuffled
from lockstep.zoo.learning import Learned, Task

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CLIP_NORM = 1.0
WEIGHTS = "weights.safetensors"


def learn(task: Task) -> Learned:
    """Train one model; see `lockstep.zoo.learning`."""
    torch.manual_seed(task.entry.recipe.seed)
    model = task.build()
    takes = list(inspect.signature(model.forward).parameters)

    def logits(batch: Batch) -> torch.Tensor:
        return model(*(torch.from_numpy(getattr(batch, name)) for name in takes))

    def save(folder: Path) -> str:
        save_model(model, str(folder / WEIGHTS))
        return WEIGHTS

    return fit(task, model, logits, save)


def fit(task: Task, model: nn.Module, logits: Callable[[Batch], torch.Tensor], save: Callable[[Path], str]) -> Learned:
    """Train `model` by the task's recipe; `logits` calls it on a batch, `save` writes its weights."""
    recipe, texts = task.entry.recipe, task.texts

    def scores(batch: Batch) -> NDArray[np.float32]:
        model.eval()
        with torch.inference_mode():
            values: NDArray[np.float32] = logits(batch).numpy()
        return values

    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    steps = [len(shuffled(texts.train, recipe.seed, epoch)) for epoch in range(recipe.epochs)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=sum(steps), pct_start=0.2
    )
    best, best_weights = -1.0, {}
    with summary_writer(task.log) as board:
        for epoch in range(1, recipe.epochs + 1):
            model.train()
            total = 0.0
            batches = shuffled(texts.train, recipe.seed, epoch - 1)
            for step, batch in enumerate(batches, start=1):
                loss = cross_entropy(logits(batch), torch.from_numpy(batch.labels))
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
                optimiser.step()
                schedule.step()
                total += loss.item()
                task.report.step(epoch, step, len(batches), total / step)
            reached = accuracy(task.held_out, scores)
            task.report.epoch(epoch, total / len(batches), reached)
            board.add_scalar("loss", total / len(batches), epoch)
            board.add_scalar("validation_accuracy", reached, epoch)
            if reached > best:
                best = reached
                best_weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_weights)
    return Learned(sum(p.numel() for p in model.parameters()), best, scores, save)


def summary_writer(log: Path) -> SummaryWriter:
    """Open a writer of TensorBoard events.

    TensorBoard imports the whole of TensorFlow where it finds it, unless a module of this name exists (see
    `tensorboard/compat/__init__.py`): seconds, and a second framework in the process, for writing a file.
    """
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(log))
