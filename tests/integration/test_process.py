"""`lockstep serve` as a process: what it imports, how it ends, what it leaves behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from lockstep.clients import SyncSentimentClient
from lockstep.local_server import ServerFailed, local_server

FRAMEWORKS = ("torch", "tensorflow", "onnxruntime", "keras")
HAS_GPU = any(Path("/dev").glob("nvidia[0-9]*"))


@contextmanager
def serve_process(repository: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `lockstep serve` on a free port; yields the process and its gRPC address once it is announced."""
    command = [sys.executable, "-m", "lockstep", "serve", "--repository", str(repository)]
    command += ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--threads", "1", *flags]
    with (
        TemporaryDirectory() as state,
        subprocess.Popen([*command, "--state", state], stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("serving "):
                    yield process, line.split(" on ")[1].split(" ")[0]
                    break
            else:
                pytest.fail("the server ended without serving")
        finally:
            process.kill()
            process.stderr.read()


def wait_ready(address: str) -> None:
    with SyncSentimentClient(address) as client:
        while not client.ready():
            pass


def test_the_gateway_imports_no_framework_and_its_worker_ends_with_it_on_kill_9(tiny_repository: Path) -> None:
    with serve_process(tiny_repository) as (process, address):
        wait_ready(address)
        with SyncSentimentClient(address, timeout_s=60) as client:
            client.classify(["word1 word2"], model="tiny-bigru", backend="tensorflow")
        gateway = psutil.Process(process.pid)
        loaded = " ".join(mapping.path for mapping in gateway.memory_maps())
        for framework in FRAMEWORKS:
            assert f"site-packages/{framework}/" not in loaded
        workers = gateway.children()
        assert len(workers) >= 5  # a preferred backend for each of four models, and TensorFlow
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert alive == []


def test_importing_the_server_imports_no_framework() -> None:
    code = f"import lockstep.server.app, sys; print([name for name in sys.modules if name in {FRAMEWORKS}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_leaves_no_worker(tiny_repository: Path, number: signal.Signals) -> None:
    with serve_process(tiny_repository) as (process, address):
        wait_ready(address)
        workers = psutil.Process(process.pid).children()
        assert workers
        process.send_signal(number)
        assert process.wait(30) == 0
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert alive == []


def test_a_corrupt_model_is_refused_by_name_and_the_others_serve(tiny_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    for model in ("tiny-bilstm", "tiny-transformer"):
        shutil.copytree(tiny_repository / model, repository / model)
    (onnx,) = (repository / "tiny-bilstm").glob("*/onnx/model.onnx")
    os.truncate(onnx, onnx.stat().st_size // 2)
    with serve_process(repository) as (_, address), SyncSentimentClient(address, timeout_s=60) as client:
        reasons = {model.name: model.reason for model in client.models()}
        assert "model.onnx has sha256" in reasons["tiny-bilstm"]
        assert len(client.classify(["word1 word2"], model="tiny-transformer")) == 1


def run_serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lockstep", "serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_cannot_be_served_is_said_with_what_to_do(tiny_repository: Path, tmp_path: Path) -> None:
    cases = {
        ("--repository", str(tmp_path / "nowhere")): "is not a folder: publish a model there first",
        ("--repository", str(tmp_path)): "nothing to serve",
        ("--repository", str(tiny_repository), "--policy", "magic"): "'magic' is not one of",
        ("--repository", str(tiny_repository), "--device", "gpu"): "--device",
    }
    if not HAS_GPU:
        cases["--repository", str(tiny_repository), "--device", "cuda:0"] = "this machine has no GPU; use --device cpu"
    for flags, message in cases.items():
        done = run_serve(*flags)
        assert done.returncode == 2, flags
        assert message in done.stderr, flags
        assert "Traceback" not in done.stderr, flags


def test_a_port_in_use_is_named(tiny_repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("--grpc", "--http"):
            done = run_serve("--repository", str(tiny_repository), flag, address)
            assert done.returncode == 2
            assert f"cannot listen on {address}" in done.stderr
            assert "Traceback" not in done.stderr


def test_a_local_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="nothing to serve"), local_server(tmp_path, tmp_path / "log"):
        pytest.fail("it served nothing")
