"""What can be set, with the defaults. Read from the command line; owns no behaviour."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PolicyName = Literal["none", "first_come", "token_budget"]
Positive = Annotated[int, Field(ge=1)]


class ServerConfig(BaseModel):
    """The whole configuration of a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Path
    grpc: str = "127.0.0.1:8001"
    http: str = "127.0.0.1:8002"

    policy: PolicyName = "token_budget"
    max_batch_rows: Positive = 32
    max_padded_tokens: Positive = 16_384
    budget_tokens: Positive = 1_024

    threads: Positive = os.cpu_count() or 1  # of computation, for each worker
    instances: Positive = 1  # workers for each backend
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda:\d+)$")] = "cpu"
    start: Literal["preferred", "all"] = "preferred"

    max_queue_rows: Positive = 4_096  # for each model
    max_call_rows: Positive = 4_096
    max_text_bytes: Positive = 256 * 1024
    max_message_bytes: Positive = 16 * 1024 * 1024
    drain_s: Annotated[float, Field(ge=0)] = 30.0
