"""The client and the commands change what a server serves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lockstep.cli import main
from lockstep.clients import Conflict, NotFound, SentimentClient, SyncSentimentClient
from tests import doubles
from tests.integration.test_security import tokens_text
from tests.serving import Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path / "models", "model")
    (tmp_path / "tokens").write_text(tokens_text(alice="infer", bob="admin"))
    for name in ("alice", "bob"):
        (tmp_path / name).write_text(f"{name}-secret\n")
    async with serving(tmp_path / "models", doubles.ADAPTERS, allow_load=True, tokens=tmp_path / "tokens") as one:
        yield one


async def run(served: Served, *arguments: str) -> Result:
    """Run a command in a thread: the server is in this one."""
    address = f"127.0.0.1:{served.app.grpc_port}"
    return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--server", address])


async def test_the_commands_load_and_unload_and_say_what_is_served(served: Served, tmp_path: Path) -> None:
    bob = ("--token-file", str(tmp_path / "bob"))
    doubles.publish(tmp_path / "models", "model", version=2)
    loaded = await run(served, "load", "model", *bob)
    assert (loaded.exit_code, loaded.output) == (0, "model: version 2 is served (before: 1)\n")
    unloaded = await run(served, "unload", "model", *bob)
    assert (unloaded.exit_code, unloaded.output) == (0, "model: unloaded\n")
    again = await run(served, "load", "model", *bob)
    assert (again.exit_code, again.output) == (0, "model: version 2 is served\n")


async def test_the_commands_say_why_they_failed(served: Served, tmp_path: Path) -> None:
    bob = ("--token-file", str(tmp_path / "bob"))
    (doubles.publish(tmp_path / "models", "model", version=2) / "onnx/model").write_bytes(b"changed")
    refused = await run(served, "load", "model", *bob)
    assert refused.exit_code == 3
    assert "FAILED_PRECONDITION: refused: model/2: onnx/model has sha256" in refused.output
    assert "version 1 goes on" in refused.output
    forbidden = await run(served, "load", "model", "--token-file", str(tmp_path / "alice"))
    assert forbidden.exit_code == 3
    assert "PERMISSION_DENIED" in forbidden.output
    absent = await run(served, "unload", "absent", *bob)
    assert absent.exit_code == 2
    assert "no model 'absent' is served" in absent.output
    nobody = await asyncio.to_thread(CliRunner().invoke, main, ["load", "model", "--server", "127.0.0.1:1"])
    assert nobody.exit_code == 4
    assert "no server answers" in nobody.output


async def test_the_client_raises_what_a_load_comes_to(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, allow_load=True) as served:
        address = f"127.0.0.1:{served.app.grpc_port}"
        async with SentimentClient(address) as client:
            doubles.publish(tmp_path, "model", version=2)
            doubles.directions(tmp_path, 2, "onnx")[1].touch()
            with pytest.raises(Conflict, match="this version cannot be loaded"):
                await client.load("model")
            with pytest.raises(NotFound):
                await client.load("absent")
            await client.unload("model")
            assert not await client.ready("model")
            doubles.publish(tmp_path, "model", version=3)
            await client.load("model")
            assert [(one.version, one.ready) for one in await client.models()] == [("3", True)]
        async with SentimentClient([address, "127.0.0.1:1"]) as several:
            with pytest.raises(ValueError, match="one by one"):
                await several.load("model")


async def test_the_sync_face_loads_and_unloads(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")

    def call(address: str) -> None:
        with SyncSentimentClient(address) as client:
            client.unload("model")
            assert not client.ready("model")
            client.load("model")
            assert client.ready("model")

    async with serving(tmp_path, doubles.ADAPTERS, allow_load=True) as served:
        await asyncio.to_thread(call, f"127.0.0.1:{served.app.grpc_port}")


async def test_a_server_where_loading_is_off_says_how_to_switch_it_on(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as served:
        result = await run(served, "load", "model")
    assert result.exit_code == 3
    assert "PERMISSION_DENIED" in result.output
    assert "--allow-load" in result.output
