"""What can be set, with the defaults and the words of `lockstep serve --help`. Owns no behaviour."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.scheduling.policy import Order

PolicyName = Literal["least_cost", "token_budget", "first_come", "none"]


class ServerConfig(BaseModel):
    """The whole configuration of a server. Each field is a flag of `lockstep serve`, and a key of its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Annotated[Path, Field(description="Folder of published models.")] = Path("models")
    state: Annotated[Path, Field(description="Folder of the server's own, for measured costs.")] = Path(".state")
    grpc: Annotated[str, Field(description="Address of the gRPC port; port 0 takes any.")] = "127.0.0.1:8001"
    http: Annotated[str, Field(description="Address of the HTTP port.")] = "127.0.0.1:8002"

    policy: Annotated[PolicyName, Field(description="Which waiting rows are executed together.")] = "least_cost"
    order: Annotated[Order, Field(description="Which group of least_cost's plan goes first.")] = "shortest"
    max_wait_ms: Annotated[
        int, Field(ge=1, description="Under least_cost, the oldest row past this wait is in the next batch.")
    ] = 400
    budget_tokens: Annotated[int, Field(ge=1, description="Rows x longest row of a batch under token_budget.")] = 1_024
    max_batch_rows: Annotated[int, Field(ge=1, description="Rows of a batch.")] = 64
    max_padded_tokens: Annotated[int, Field(ge=1, description="Rows x longest row of a batch.")] = 16_384

    measure_s: Annotated[
        float,
        Field(ge=0, description="Seconds to measure a backend's costs when it first starts; 0 plans by padded tokens."),
    ] = 4.0

    threads: Annotated[int, Field(ge=1, description="Threads of computation of each worker.")] = 1
    instances: Annotated[int, Field(ge=1, description="Workers of each backend; by default one a core.")] = (
        os.cpu_count() or 1
    )
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|cuda:\d+)$", description="Where workers execute: auto, cpu or cuda:N.")
    ] = "cpu"
    start: Annotated[
        Literal["preferred", "all"],
        Field(description="Backends to start at once; the others start when a row needs them."),
    ] = "preferred"

    max_queue_rows: Annotated[int, Field(ge=1, description="Rows that may wait, for each model.")] = 4_096
    max_call_rows: Annotated[int, Field(ge=1, description="Rows of one call.")] = 4_096
    max_stream_messages: Annotated[
        int, Field(ge=1, description="Unanswered messages of one stream; the server then reads no further.")
    ] = 1_024
    max_text_bytes: Annotated[int, Field(ge=1, description="Bytes of one text.")] = 256 * 1024
    max_message_bytes: Annotated[int, Field(ge=1, description="Bytes of one gRPC message.")] = 16 * 1024 * 1024
    drain_s: Annotated[
        float, Field(ge=0, description="Seconds that accepted calls have to finish after SIGTERM or Ctrl-C.")
    ] = 30.0
