"""One file sets all; flags win over it; what is wrong is named."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from lockstep.commands.serve import serve
from lockstep.server.app import App
from lockstep.server.config import ConfigurationError, ServerConfig
from lockstep.server.core.address import Address
from tests import doubles

FILE = """
policy = "first_come"
threads = 3

[models.one]
policy = "none"
max_wait_ms = 77

[models.one.backends.tensorflow]
instances = 5
threads = 2
python = "/opt/other/bin/python"

[models.two.backends.tensorflow]
enabled = false
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for model in ("one", "two"):
        doubles.publish(tmp_path / "models", model)
    return tmp_path / "models"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lockstep.toml"
    path.write_text(text)
    return path


async def test_the_file_sets_what_differs_for_a_model_and_a_backend(repository: Path, tmp_path: Path) -> None:
    config = ServerConfig.read(written(tmp_path, FILE), {"repository": repository, "threads": 4})
    app = App(config, adapters=doubles.ADAPTERS)
    one, two = (app.gateway.models[name].batcher for name in ("one", "two"))
    assert (one.spec.policy.__name__, two.spec.policy.__name__) == ("none", "first_come")
    onnx, tensorflow = one.backends
    assert onnx.spec.limits.max_wait_ns == 77_000_000
    assert onnx.spec.launch.budget.threads == 4  # the flag wins over the file
    assert (tensorflow.spec.instances, tensorflow.spec.launch.budget.threads) == (5, 2)
    assert tensorflow.spec.launch.python == "/opt/other/bin/python"
    assert [backend.name for backend in two.backends] == ["onnxruntime"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "colour"),
        ("threads = 0", "threads"),
        ('policy = "magic"', "policy"),
        ("[models.one]\ncolour = 1", "models.one.colour"),
        ("[models.one.backends.tensorflow]\nthreads = 0", "models.one.backends.tensorflow.threads"),
        ("not toml", "lockstep.toml"),
        ("[models.absent]\n", "absent"),
        ("grpc = 8001", "grpc 8001: an address is text"),
        ('http = "127.0.0.1:70000"', "invalid port 70000: use 1 to 65535"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(repository: Path, tmp_path: Path, text: str, message: str) -> None:
    flags = ["--config", str(written(tmp_path, text)), "--repository", str(repository)]
    result = CliRunner().invoke(serve, flags)
    assert result.exit_code == 2, result.output
    assert message in result.output


async def test_a_backend_that_is_not_there_refuses_its_model(repository: Path, tmp_path: Path) -> None:
    for text in ('[models.one]\npreferred = "torch"', "[models.one.backends.torch]\nthreads = 1"):
        config = ServerConfig.read(written(tmp_path, text), {"repository": repository})
        app = App(config, adapters=doubles.ADAPTERS)
        assert "torch" in app.gateway.refused["one"].reason
        assert list(app.gateway.models) == ["two"]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        ServerConfig.model_validate({"grpcs": "x"})


async def test_nothing_to_serve_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to serve"):
        App(ServerConfig(repository=tmp_path))


WRONG_ADDRESSES = {
    "127.0.0.1:99999": "use 1 to 65535, or 0 for any free one",
    "127.0.0.1:0065536": "use 1 to 65535, or 0 for any free one",
    "127.0.0.1:-1": "use 1 to 65535, or 0 for any free one",
    "abc:xyz": "use 1 to 65535, or 0 for any free one",
    "127.0.0.1:": "use 1 to 65535, or 0 for any free one",
    "127.0.0.1": "the port is missing: write 127.0.0.1:8001",
    "[::1]": "the port is missing: write [::1]:8001",
    "": "the port is missing",
    ":8001": "the host is missing: write 127.0.0.1:8001",
    "::1:8001": "in brackets",
    "[::g]:8001": "not an IPv6 address",
    "[127.0.0.1]:8001": "not an IPv6 address",
    "127.0.0.256:8001": "not an IPv4 address",
    "http://127.0.0.1:8001": "write 127.0.0.1:8001, without http://",
    "a host:8001": "not a host name",
    "unix:": "the path of a socket",
    f"unix:/{'x' * 107}": "at most 107 bytes",
}


@pytest.mark.parametrize("flag", ["--grpc", "--http"])
@pytest.mark.parametrize("address", WRONG_ADDRESSES)
def test_an_address_that_is_none_is_refused_before_anything_listens(repository: Path, flag: str, address: str) -> None:
    result = CliRunner().invoke(serve, ["--check", "--repository", str(repository), flag, address])
    assert result.exit_code == 2, result.output
    assert f"{flag} {address!r}: " in result.output
    if flag == "--grpc" or not address.startswith("unix:"):
        assert WRONG_ADDRESSES[address] in result.output


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0), True),
        ("localhost:65535", Address("localhost", 65535), True),
        ("[::1]:8001", Address("::1", 8001), True),
        ("[::]:8001", Address("::", 8001), False),
        ("0.0.0.0:8001", Address("0.0.0.0", 8001), False),
        ("model-server.example.:80", Address("model-server.example.", 80), False),
        ("unix:/run/lockstep.sock", Address("", 0, "/run/lockstep.sock"), True),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: Address, loopback: bool) -> None:
    read = ServerConfig.model_validate({"grpc": text}).grpc
    assert (read, str(read), read.is_loopback) == (address, text, loopback)


def test_the_http_port_takes_no_unix_socket() -> None:
    with pytest.raises(ValidationError, match="the HTTP port takes no unix: address"):
        ServerConfig.model_validate({"http": "unix:/run/lockstep.sock"})


def test_a_file_that_is_not_utf_8_is_named(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "lockstep.toml"
    path.write_bytes("# größer".encode("latin-1"))
    result = CliRunner().invoke(serve, ["--config", str(path), "--repository", str(repository)])
    assert result.exit_code == 2, result.output
    assert "lockstep.toml: byte 4 is not UTF-8" in result.output.replace("\n", " ")
