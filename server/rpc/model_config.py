"""A model as Open Inference's configuration extension describes one: what generic clients and load tools ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.protos import open_inference_pb2 as oip
from lockstep.server.gateway import ServedModel
from lockstep.server.scheduling.backend import Backend

_TYPES = {
    "BOOL": oip.DataType.TYPE_BOOL,
    "INT64": oip.DataType.TYPE_INT64,
    "FP32": oip.DataType.TYPE_FP32,
    "BYTES": oip.DataType.TYPE_STRING,
}
_KINDS = {"cpu": oip.ModelInstanceGroup.KIND_CPU, "cuda": oip.ModelInstanceGroup.KIND_GPU}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of every model: its shape with -1 for a dynamic axis; the first is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


INPUTS = (
    Tensor("text", "BYTES", (-1, 1)),
    Tensor("input_ids", "INT64", (-1, -1)),
    Tensor("attention_mask", "INT64", (-1, -1)),
    Tensor("lengths", "INT64", (-1, 1)),
)
"""Text, or ids with a mask or lengths: one of the two.

`[n]` is taken for `[n, 1]` too. It is not what is told: perf_analyzer takes the batch off, and cannot send a tensor
that has no axis left.
"""


def outputs(labels: int) -> tuple[Tensor, ...]:
    """Return what a model of so many labels answers."""
    return (
        Tensor("probabilities", "FP32", (-1, labels)),
        Tensor("label", "BYTES", (-1,)),
        Tensor("truncated", "BOOL", (-1,)),
    )


def model_config(name: str, served: ServedModel, backends: Sequence[Backend], platform: str) -> oip.ModelConfig:
    """Describe a model, or a backend of it, under the name that was asked for."""
    manifest = served.manifest
    config = oip.ModelConfig(
        name=name,
        platform=platform,
        backend=platform,
        max_batch_size=max(backend.limits.max_rows for backend in backends),
        version_policy=oip.ModelVersionPolicy(latest=oip.ModelVersionPolicy.Latest(num_versions=1)),
        model_transaction_policy=oip.ModelTransactionPolicy(decoupled=False),
        dynamic_batching=oip.ModelDynamicBatching(),  # no delay: a batch is what queued meanwhile
    )
    for tensor in INPUTS:
        ragged = tensor.name == "input_ids"
        config.input.add(
            name=tensor.name,
            data_type=_TYPES[tensor.datatype],
            dims=tensor.shape[1:],
            optional=True,
            allow_ragged_batch=ragged,
        )
    for tensor in outputs(len(manifest.labels)):
        config.output.add(name=tensor.name, data_type=_TYPES[tensor.datatype], dims=tensor.shape[1:])
    for backend in backends:
        device, _, ordinal = backend.spec.launch.budget.device.partition(":")
        config.instance_group.add(
            name=backend.name,
            kind=_KINDS[device],
            count=backend.spec.instances,
            gpus=[int(ordinal or 0)] if device == "cuda" else [],
        )
    parameters = {
        "labels": ",".join(manifest.labels),
        "max_tokens": str(manifest.max_tokens),
        "truncation_side": manifest.truncation_side,
        "version": str(manifest.version),
        "source_framework": manifest.source.framework,
    }
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config
