"""From a published version to a model that can be served: its tokenizer, queue and backends, as they are configured.

Starts nothing. `build` may be called in any thread, so that a large tokenizer holds up no request.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lockstep.server.config import BackendConfig, ConfigurationError, ModelConfig, ServerConfig
from lockstep.server.core.artifact import Budget
from lockstep.server.core.observer import Observer
from lockstep.server.core.probabilities import reader
from lockstep.server.gateway import ServedModel
from lockstep.server.repository.catalog import ArtifactFiles, PublishedModel
from lockstep.server.repository.manifest import Artifact, backend_name
from lockstep.server.runtimes.installed import Installed
from lockstep.server.runtimes.worker_process import Launch
from lockstep.server.scheduling.backend import BackendSpec
from lockstep.server.scheduling.batcher import Batcher, BatcherSpec
from lockstep.server.scheduling.cost_store import CostStore, hardware
from lockstep.server.scheduling.policies import POLICIES
from lockstep.server.scheduling.policy import Limits
from lockstep.server.scheduling.slots import WorkerSlots
from lockstep.server.text.encoder import TextEncoder


class ModelBuilder:
    """Builds the models of one server: they share its worker slots and its folder of costs."""

    def __init__(
        self,
        config: ServerConfig,
        adapters: Mapping[str, str],
        observer: Observer,
        readiness_changed: Callable[[], None],
    ) -> None:
        """Share what all models need. Raises `ConfigurationError` where the configured device is not there."""
        self._config = config
        self._device = resolve_device(config.device)
        self._adapters = adapters
        self._observer = observer
        self._readiness_changed = readiness_changed
        self._costs = CostStore(config.state)
        self._hardware = hardware()
        self._slots = WorkerSlots(config.max_workers)
        self._installed = Installed()

    def build(self, published: PublishedModel) -> ServedModel:
        """Build a model's queue and backends; raises `ConfigurationError`, `ValueError` where it cannot be served."""
        manifest = published.manifest
        model = self._config.models.get(manifest.name, ModelConfig())
        limits = Limits(
            max_rows=model.max_batch_rows or self._config.max_batch_rows,
            max_padded_tokens=model.max_padded_tokens or self._config.max_padded_tokens,
            budget_tokens=model.budget_tokens or self._config.budget_tokens,
            max_wait_ns=(model.max_wait_ms or self._config.max_wait_ms) * 1_000_000,
            order=model.order or self._config.order,
        )
        known = {backend_name(artifact): artifact for artifact in manifest.artifacts}
        for name in model.backends:
            if name not in known:
                raise ConfigurationError(f"the configuration names backend {name}, there are {', '.join(known)}")
        backends = [
            self._backend(published, artifact, limits, section)
            for name, artifact in known.items()
            if (section := model.backends.get(name, BackendConfig())).enabled
        ]
        if backends and all(one.missing for one in backends):
            raise ConfigurationError("; ".join(dict.fromkeys(one.missing for one in backends)))
        if model.preferred is not None and model.preferred not in [one.name for one in backends if one.takes_free_rows]:
            raise ConfigurationError(f"the configuration prefers {model.preferred}, which does not take free rows here")
        spec = BatcherSpec(
            model=manifest.name,
            version=manifest.version,
            backends=backends,
            policy=POLICIES[model.policy or self._config.policy],
            pad_id=manifest.pad_id,
            max_queue_s=model.max_queue_s or self._config.max_queue_s,
            max_queue_rows=model.max_queue_rows or self._config.max_queue_rows,
            start_all=(model.start or self._config.start) == "all",
            spread=model.spread,
            preferred=model.preferred,
            idle_stop_s=self._config.idle_stop_s,
        )
        return ServedModel(
            published,
            TextEncoder.from_file(published.tokenizer, manifest.max_tokens, manifest.truncation_side),
            Batcher(spec, self._costs, self._slots, self._observer, readiness_changed=self._readiness_changed),
            tuple(manifest.labels),
        )

    def _backend(
        self, published: PublishedModel, artifact: Artifact, limits: Limits, section: BackendConfig
    ) -> BackendSpec:
        if artifact.runtime not in self._adapters:
            raise ConfigurationError(f"this server has no runtime {artifact.runtime}")
        device = resolve_device(section.device) if section.device else self._device
        threads = section.threads or self._config.threads
        ahead = self._config.prepare_ahead if section.prepare_ahead is None else section.prepare_ahead
        name = backend_name(artifact) + ("" if device == "cpu" else "-" + device.partition(":")[0])
        launch = Launch(
            adapter=self._adapters[artifact.runtime],
            artifact=published.spec(artifact),
            budget=Budget(threads, device),
            python=section.python or sys.executable,
            files=ArtifactFiles(published, artifact),
            named={"model": published.manifest.name, "version": str(published.manifest.version), "backend": name},
        )
        missing = self._installed.missing(launch.python, launch.adapter)
        return BackendSpec(
            name=name,
            launch=launch,
            takes_free_rows="-" not in artifact.kind and not missing,
            cpu_ms=artifact.parity.cpu_ms_b32_t64 or float("inf"),
            circumstances={
                "artifact": " ".join(sorted(artifact.files.values())),
                "adapter": launch.adapter,
                "hardware": self._hardware,
                "threads": str(threads),
                "device": device,
                "limits": f"{limits.max_rows} {limits.max_padded_tokens} {published.manifest.max_tokens}",
            },
            vocabulary=published.manifest.vocabulary,
            max_tokens=published.manifest.max_tokens,
            measure_s=self._config.measure_s,
            probabilities=reader(artifact.output, artifact.activation),
            limits=limits,
            missing=missing,
            instances=section.instances or self._config.instances,
            # a GPU would idle while the next batch is planned; on a CPU that plan takes cycles from the batch before
            prepare_ahead=int(device != "cpu") if ahead is None else ahead,
        )


def resolve_device(wanted: str) -> str:
    """Return `cpu` or `cuda:N`. Raises `ConfigurationError` where the GPU that is asked for is not there."""
    present = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if wanted == "auto":
        return "cuda:0" if present else "cpu"
    if wanted != "cpu" and f"nvidia{wanted.partition(':')[2]}" not in {path.name for path in present}:
        found = f"{len(present)} GPUs" if present else "no GPU"
        raise ConfigurationError(f"--device {wanted}: this machine has {found}; use --device cpu or auto")
    return wanted
