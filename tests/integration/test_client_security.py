"""The client and the command say who they are, and know whom they call."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from lockstep.cli import main
from lockstep.clients import Credentials, NotAuthenticated, Prediction, RetryPolicy, SentimentClient, Unavailable
from lockstep.clients.client import Mode
from lockstep.clients.loadtest import LoadPlan, Setting
from lockstep.clients.loadtest.metrics_scrape import NOTHING
from lockstep.clients.loadtest.run import measure_sweep
from lockstep.clients.loadtest.session import _first_scrape
from tests import doubles
from tests.integration.test_security import Pki, tokens_text
from tests.serving import serving


@pytest.fixture(params=["stream", "unary"])
def mode(request: pytest.FixtureRequest) -> Mode:
    travels: Mode = request.param
    return travels


async def test_a_token_and_a_certificate_open_the_door_and_nothing_less_does(tmp_path: Path, mode: Mode) -> None:
    doubles.publish(tmp_path / "models", "model")
    pki = Pki.write(tmp_path / "pki")
    (tmp_path / "tokens").write_text(tokens_text(alice="infer"))
    settings = {"tls_cert": pki.cert, "tls_key": pki.key, "tls_client_ca": pki.ca, "tokens": tmp_path / "tokens"}
    known = {"root_certificates": pki.ca, "certificate": pki.client_cert, "key": pki.client_key}
    async with serving(
        tmp_path / "models", doubles.ADAPTERS, channel_to=pki.channel(with_client=True), **settings
    ) as served:
        address = f"127.0.0.1:{served.app.grpc_port}"
        alice = Credentials("alice-secret", **known)
        async with SentimentClient(address, credentials=alice, mode=mode) as client:
            assert isinstance((await client.classify(["good film"]))[0], Prediction)
            assert await client.ready("model")
        async with SentimentClient(address, credentials=Credentials("guessed", **known), mode=mode) as client:
            with pytest.raises(NotAuthenticated):
                await client.classify(["good film"])
        unknown = Credentials("alice-secret", root_certificates=pki.ca)
        async with SentimentClient(address, credentials=unknown, mode=mode, retry=RetryPolicy(attempts=2)) as client:
            with pytest.raises(Unavailable):
                await client.classify(["good film"])


async def test_a_load_test_reads_the_metrics_of_a_server_with_tls_and_tokens(tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    pki = Pki.write(tmp_path / "pki")
    (tmp_path / "tokens").write_text(tokens_text(alice="infer"))
    settings = {"tls_cert": pki.cert, "tls_key": pki.key, "tls_client_ca": pki.ca, "tokens": tmp_path / "tokens"}
    known = {"root_certificates": pki.ca, "certificate": pki.client_cert, "key": pki.client_key}
    channel = pki.channel(with_client=True)
    async with serving(tmp_path / "models", doubles.ADAPTERS, channel_to=channel, **settings) as served:
        plan = LoadPlan(
            model="model",
            address=f"127.0.0.1:{served.app.grpc_port}",
            http=f"127.0.0.1:{served.app.http_port}",
            backends=("onnxruntime",),
            rows=20,
            rounds=1,
            warmup_s=0.0,
        )
        (report,) = await measure_sweep([plan], Setting(credentials=Credentials("alice-secret", **known)))
    (backend,) = report.backends
    assert (backend.rows, backend.errors, backend.threads) == (20, {}, 1)
    assert backend.cost is not None


async def test_what_listens_here_is_not_taken_for_another_machines_metrics_and_gets_no_token() -> None:
    plan = LoadPlan(model="model", address="192.0.2.1:8001")
    found, warnings = await _first_scrape(plan, Credentials("secret", tls=True))
    assert found is NOTHING
    assert warnings == ("the server's metrics were not read: say where they are (--http)",)


async def test_a_token_never_travels_in_the_clear() -> None:
    with pytest.raises(ValueError, match="in the clear: use TLS"):
        async with SentimentClient("192.0.2.1:8001", credentials=Credentials("secret")):
            pass
    assert "secret" not in repr(Credentials("secret"))


@pytest.mark.parametrize("token", ["", "line\nbreak", "ünicode"])
def test_what_cannot_be_a_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Credentials(token)


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ValueError, match="name both"):
        Credentials(certificate="a.pem")


def test_the_command_names_a_wrong_option(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("")
    result = CliRunner().invoke(main, ["classify", "good", "--token-file", str(tmp_path / "token")])
    assert result.exit_code == 2
    assert "printable ASCII" in result.output
