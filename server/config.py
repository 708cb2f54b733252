"""What can be set, with the defaults and the words of `lockstep serve --help`. Owns no behaviour.

One file (TOML) may set all of it: the keys are the flags, with underscores; flags win over the file. What the
defaults do not fit for one model or one backend goes into tables of its own:

    policy = "least_cost"

    [models.hf-minilm]
    max_wait_ms = 800

    [models.hf-minilm.backends.tensorflow]
    device = "cuda:0"
    python = "/opt/tensorflow-cuda12/bin/python"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from lockstep.cores import usable_cores
from lockstep.server.core.address import Address
from lockstep.server.core.errors import LockstepError
from lockstep.server.logs import LogFormat
from lockstep.server.scheduling.policy import Order

PolicyName = Literal["least_cost", "token_budget", "first_come", "none"]
Count = Annotated[int, Field(ge=1)]


def _split(value: object) -> object:
    """Read a list that a flag writes as one text."""
    return [part for one in value.split(",") if (part := one.strip())] if isinstance(value, str) else value


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("an address is text: write host:port")
    return Address.parse(value)


def _port_address(value: object) -> Address:
    """Read an address of the HTTP port, which has no Unix socket: browsers and scrapers could not reach it."""
    address = _address(value)
    if address.path is not None:
        raise ValueError("the HTTP port takes no unix: address: write host:port")
    return address


Listen = Annotated[Address, BeforeValidator(_address), PlainSerializer(str)]
ListenTcp = Annotated[Address, BeforeValidator(_port_address), PlainSerializer(str)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda:\d+)$")]


class ConfigurationError(LockstepError):
    """The server cannot start, or serve a model, as it is configured; the message says what to change."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackendConfig(_Section):
    """`[models.<model>.backends.<runtime>[-<variant>]]`: what differs for one backend; None: as for the model."""

    enabled: bool = True
    threads: Count | None = None
    instances: Count | None = None
    device: Device | None = None
    prepare_ahead: Annotated[int, Field(ge=0)] | None = None
    python: str | None = None  # interpreter of the workers, with the runtime and numpy; None: the server's own


class ModelConfig(_Section):
    """`[models.<model>]`: what differs for one model; None: as for the server."""

    policy: PolicyName | None = None
    order: Order | None = None
    max_wait_ms: Count | None = None
    budget_tokens: Count | None = None
    max_batch_rows: Count | None = None
    max_padded_tokens: Count | None = None
    max_queue_rows: Count | None = None
    max_queue_s: Annotated[float, Field(gt=0)] | None = None
    start: Literal["preferred", "all"] | None = None
    preferred: str | None = None  # the backend that free rows go to; None: the cheapest, by measurement
    spread: bool = False  # free rows go to every backend at once: their devices are separate
    backends: dict[str, BackendConfig] = Field(default_factory=dict)


class ServerConfig(_Section):
    """The whole configuration of a server. Each field but `models` is a flag of `lockstep serve` too."""

    repository: Annotated[Path, Field(description="Folder of published models.")] = Path("models")
    state: Annotated[Path, Field(description="Folder of the server's own, for measured costs.")] = Path(".state")
    grpc: Annotated[
        Listen, Field(description="Address of the gRPC port: host:port, [IPv6]:port or unix:PATH; port 0 takes any.")
    ] = Address("127.0.0.1", 8001)
    http: Annotated[
        ListenTcp, Field(description="Address of the HTTP port: host:port or [IPv6]:port; port 0 takes any.")
    ] = Address("127.0.0.1", 8002)

    http_names: Annotated[
        Names,
        Field(
            description="Further names, by commas, that the HTTP port answers to where it is on the loopback interface."
        ),
    ] = ()

    tls_cert: Annotated[Path | None, Field(description="PEM file of the certificate chain, for both ports.")] = None
    tls_key: Annotated[Path | None, Field(description="PEM file of its key.")] = None
    tls_client_ca: Annotated[
        Path | None, Field(description="PEM file of the CA certificates that sign clients' certificates.")
    ] = None
    tokens: Annotated[
        Path | None,
        Field(description="File of bearer tokens, a line each: role name sha256:DIGEST; SIGHUP rereads it."),
    ] = None
    require_auth: Annotated[
        bool, Field(description="Refuse to listen beyond this machine without TLS and tokens or client certificates.")
    ] = False
    reflection: Annotated[bool, Field(description="Describe the services to whoever may call them.")] = True

    allow_load: Annotated[
        bool,
        Field(description="Let callers load and unload models (where there are tokens: those of the role admin)."),
    ] = False
    watch_repository: Annotated[
        float | None,
        Field(gt=0, description="Look for new versions each so many seconds, and load them while serving."),
    ] = None

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
    instances: Annotated[
        int, Field(ge=1, description="Workers of each backend at most; by default as many as cores that it may use.")
    ] = usable_cores()
    max_workers: Annotated[
        int, Field(ge=1, description="Workers of all models together; idle ones make room for those that are needed.")
    ] = 64
    idle_stop_s: Annotated[
        float, Field(gt=0, description="Seconds of idleness after which a worker that is not the preferred one stops.")
    ] = 300.0
    device: Annotated[Device, Field(description="Where workers execute: auto, cpu or cuda:N.")] = "cpu"
    prepare_ahead: Annotated[
        int | None,
        Field(ge=0, description="Batches kept ready in a worker while it executes; by default 1 on a GPU, else 0."),
    ] = None
    start: Annotated[
        Literal["preferred", "all"],
        Field(description="Workers to start at once; the others start when rows need them."),
    ] = "preferred"

    max_queue_rows: Annotated[int, Field(ge=1, description="Rows that may wait, for each model.")] = 4_096
    max_queue_s: Annotated[
        float,
        Field(gt=0, description="Seconds that a new row may have to wait, by the recent throughput, for each model."),
    ] = 10.0
    max_call_rows: Annotated[int, Field(ge=1, description="Rows of one call.")] = 4_096
    max_stream_messages: Annotated[
        int, Field(ge=1, description="Unanswered messages of one stream; the server then reads no further.")
    ] = 1_024
    max_text_bytes: Annotated[int, Field(ge=1, description="Bytes of one text.")] = 256 * 1024
    max_tokenize_characters: Annotated[
        int, Field(ge=1, description="Characters of long texts that wait to be tokenised, of all calls.")
    ] = 4 * 1024 * 1024
    max_message_bytes: Annotated[int, Field(ge=1, description="Bytes of one gRPC message.")] = 16 * 1024 * 1024
    max_calls: Annotated[int, Field(ge=1, description="Unary calls that are answered at once.")] = 16_384
    max_streams: Annotated[int, Field(ge=1, description="Streams that are open at once.")] = 1_024
    max_http_calls: Annotated[int, Field(ge=1, description="Calls of the HTTP port that are answered at once.")] = 128
    max_connections: Annotated[int, Field(ge=1, description="Connections of each port; further ones are closed.")] = (
        4_096
    )
    max_connection_calls: Annotated[
        int, Field(ge=1, description="Calls and streams at once on one connection; further ones wait in the client.")
    ] = 4_096
    keepalive_s: Annotated[
        int, Field(ge=1, description="Seconds of silence after which a connection is probed, and closed if it is dead.")
    ] = 60
    min_ping_s: Annotated[
        int, Field(ge=1, description="Clients that ping more often than each so many seconds are disconnected.")
    ] = 10

    log_format: Annotated[LogFormat, Field(description="How the log is written: a line or a JSON object each.")] = (
        "text"
    )
    access_log: Annotated[bool, Field(description="Log a line for every call; it costs some CPU time.")] = False
    drain_s: Annotated[
        float, Field(ge=0, description="Seconds that accepted calls have to finish after SIGTERM or Ctrl-C.")
    ] = 30.0

    models: dict[str, ModelConfig] = Field(default_factory=dict)

    @classmethod
    def read(cls, file: Path | None, flags: Mapping[str, Any]) -> ServerConfig:
        """Read a file, if there is one, and flags over it.

        Raises `ConfigurationError` where the file is no TOML, `pydantic.ValidationError` for what is in it.
        """
        document = _document(file) if file is not None else {}
        return cls.model_validate({**document, **flags})


def _document(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{file}: byte {error.start} is not UTF-8, as TOML must be: save it as that"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
