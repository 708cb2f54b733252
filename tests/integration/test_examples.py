"""Every example is run as a person would run it, against a real server."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tests import doubles
from tests.serving import Served, serving

pytestmark = pytest.mark.timeout(120)
EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "classify.py": "at the server",
    "classify_async.py": "100 answers",
    "every_backend.py": "model ",
    "errors.py": "NOT_FOUND: no model 'no-such-model' is served",
    "several_servers.py": "100 answers from 2 servers",
    "secure.py": "Prediction(",
    "open_inference.py": "tive ",
}
"""A piece of what each prints."""


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as server:
        yield server


async def printed(example: str, *arguments: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / example),
        *arguments,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


def test_every_example_is_listed_and_run() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}
    assert files == set(SAYS)
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in files)


def test_examples_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        code = [line for line in path.read_text().splitlines()[1:] if line.strip() and "import" not in line.split()]
        assert len(code) <= 12, path.name


@pytest.mark.parametrize("example", sorted(set(SAYS) - {"several_servers.py", "secure.py"}))
async def test_an_example_does_what_it_says(example: str, served: Served) -> None:
    assert SAYS[example] in await printed(example, f"127.0.0.1:{served.app.grpc_port}")


async def test_the_example_of_several_servers(served: Served, tmp_path: Path) -> None:
    async with serving(tmp_path, doubles.ADAPTERS) as other:
        addresses = [f"127.0.0.1:{one.app.grpc_port}" for one in (served, other)]
        assert SAYS["several_servers.py"] in await printed("several_servers.py", *addresses)
        answered = [one.app.statistics.model("model", 1).success.count for one in (served, other)]
    assert sum(answered) == 100
    assert min(answered) > 0


async def test_the_example_of_tls_and_a_token(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    (tmp_path / "tokens").write_text(f"infer me sha256:{digest}\n")
    async with serving(
        tmp_path / "models",
        doubles.ADAPTERS,
        tls_cert=tmp_path / "cert.pem",
        tls_key=tmp_path / "key.pem",
        tokens=tmp_path / "tokens",
    ) as server:
        output = await printed(
            "secure.py",
            f"localhost:{server.app.grpc_port}",
            LOCKSTEP_CA=str(tmp_path / "ca.pem"),
            LOCKSTEP_TOKEN="test",
        )
    assert SAYS["secure.py"] in output
