"""A second server on what a first one uses is told so, and changes nothing; what a killed one left is taken over."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from lockstep.protos import open_inference_pb2 as oip
from lockstep.server.app import App
from lockstep.server.config import ConfigurationError, ServerConfig
from lockstep.server.core.locks import FileLock, Held
from tests import doubles
from tests.serving import Served, serving


def another(repository: Path, **config: object) -> App:
    """Return a server that has not started yet."""
    settings = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "state": repository / "another", "instances": 1}
    return App(ServerConfig.model_validate({"repository": repository, **settings, **config}), adapters=doubles.ADAPTERS)


async def refused(app: App) -> str:
    """Return why a server does not start: one line."""
    with pytest.raises(ConfigurationError) as caught:
        await app.start()
    assert "\n" not in caught.value.message
    return caught.value.message


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what is in a folder: name -> file number and time of its last change."""
    return {one.name: (one.lstat().st_ino, one.lstat().st_mtime_ns) for one in folder.iterdir()}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    doubles.publish(tmp_path / "models", "model")
    return tmp_path / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
async def first(repository: Path, folder: Path) -> AsyncIterator[Served]:
    """A server on a Unix socket."""
    path = f"unix:{folder}/s"
    async with serving(
        repository,
        doubles.ADAPTERS,
        channel_to=lambda _: grpc.aio.insecure_channel(path),
        grpc=path,
        state=folder / "state",
    ) as served:
        yield served


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


async def test_the_socket_of_a_server_that_runs_is_left_alone(first: Served, repository: Path, folder: Path) -> None:
    before = tree(folder)
    said = await refused(another(repository, grpc=f"unix:{folder}/s"))
    assert said.startswith(
        f"cannot listen on unix:{folder}/s (gRPC): it is in use by another server (process {os.getpid()}): "
    )
    assert tree(folder) == before
    async with grpc.aio.insecure_channel(f"unix:{folder}/s", options=[("grpc.use_local_subchannel_pool", 1)]) as fresh:
        call = fresh.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert oip.ServerLiveResponse.FromString(await call(b"")).live


async def test_the_state_folder_of_a_server_that_runs_is_left_alone(
    first: Served, repository: Path, folder: Path
) -> None:
    said = await refused(another(repository, state=folder / "state"))
    assert said == (
        f"the state folder {folder}/state is in use by another server (process {os.getpid()}): "
        "give this one its own with --state"
    )


async def test_a_server_that_stopped_leaves_neither_socket_nor_lock(repository: Path, folder: Path) -> None:
    for _ in range(2):
        app = another(repository, grpc=f"unix:{folder}/s", state=folder / "state")
        await app.start()
        await app.stop()
        assert list(tree(folder)) == ["state"]
        assert list(tree(folder / "state")) == []


async def test_the_socket_that_a_killed_server_left_is_taken_over(repository: Path, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(f"{folder}/s")
        killed.listen()
    (folder / "s.lock").write_text("1\n")
    async with serving(
        repository,
        doubles.ADAPTERS,
        channel_to=lambda _: grpc.aio.insecure_channel(f"unix:{folder}/s"),
        grpc=f"unix:{folder}/s",
    ) as served:
        assert (await served.inference.ServerLive(oip.ServerLiveRequest())).live


async def test_what_is_there_and_is_not_ours_is_left_alone(repository: Path, folder: Path) -> None:
    (folder / "file").write_text("a user's own")
    assert "a file is there" in await refused(another(repository, grpc=f"unix:{folder}/file"))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{folder}/other")
        other.listen()
        assert "it is in use: " in await refused(another(repository, grpc=f"unix:{folder}/other"))
    assert sorted(tree(folder)) == ["file", "other"]
    assert "nowhere/s.lock: No such file" in await refused(another(repository, grpc=f"unix:{folder}/nowhere/s"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::]"])
async def test_a_port_in_use_is_told_with_the_flag_that_changes_it(repository: Path, listener: int, host: str) -> None:
    said = await refused(another(repository, grpc=f"{host}:{listener}"))
    assert said == (
        f"cannot listen on {host}:{listener} (gRPC): it is in use: "
        "stop what listens there, or give this server another with --grpc"
    )


async def test_where_the_http_port_is_in_use_no_socket_is_left_behind(
    repository: Path, folder: Path, listener: int
) -> None:
    said = await refused(another(repository, grpc=f"unix:{folder}/s", http=f"127.0.0.1:{listener}"))
    assert "(HTTP): it is in use: " in said
    assert said.endswith("--http")
    assert tree(folder) == {}


async def test_a_state_folder_that_cannot_be_written_stops_nobody(
    repository: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "state").write_text("no folder")
    app = another(repository, state=folder / "state")
    await app.start()
    await app.stop()
    assert "costs are not kept" in caplog.text


def test_a_lock_is_held_by_one_and_ends_with_its_process(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from lockstep.server.core.locks import FileLock\n"
    code += "lock = FileLock.take(Path(sys.argv[1])); print('taken', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"taken\n"
        with pytest.raises(Held) as caught:
            FileLock.take(folder / "lock")
        assert caught.value.pid == holder.pid
        holder.send_signal(signal.SIGKILL)
    lock = FileLock.take(folder / "lock")
    lock.release()
    lock.release()
    assert tree(folder) == {}
