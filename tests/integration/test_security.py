"""Strangers stay out: TLS, client certificates, tokens and roles, on both ports and on streams."""

import base64
import hashlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.app import App
from lockstep.server.config import ConfigurationError, ServerConfig
from tests import doubles
from tests.serving import Served, serving, text_request

ALICE = (("authorization", "Bearer alice-secret"),)
BOB = (("authorization", "Bearer bob-secret"),)
STRANGER = (("authorization", "Bearer guessed"),)
RELOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"


def tokens_text(**roles: str) -> str:
    """Return a file's text: each name has the role, and the secret `<name>-secret`."""
    digests = {name: hashlib.sha256(f"{name}-secret".encode()).hexdigest() for name in roles}
    return "".join(f"{role} {name} sha256:{digests[name]}\n" for name, role in roles.items())


@dataclass(frozen=True)
class Pki:
    """Files of an authority, a server and a client that it vouches for."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path

    @classmethod
    def write(cls, folder: Path) -> "Pki":
        folder.mkdir(exist_ok=True)
        authority = trustme.CA()
        server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("client")
        made = cls(*(folder / f"{name}.pem" for name in ("ca", "cert", "key", "client-cert", "client-key")))
        authority.cert_pem.write_to_path(made.ca)
        for issued, cert, key in ((server, made.cert, made.key), (client, made.client_cert, made.client_key)):
            cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            issued.private_key_pem.write_to_path(key)
        return made

    def channel(self, *, with_client: bool = False) -> Callable[[App], grpc.aio.Channel]:
        pair = (self.client_key.read_bytes(), self.client_cert.read_bytes()) if with_client else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca.read_bytes(), *pair)
        return lambda app: grpc.aio.secure_channel(f"127.0.0.1:{app.grpc_port}", credentials)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    doubles.publish(tmp_path / "models", "model")
    return tmp_path / "models"


@pytest.fixture
async def served(repository: Path, tmp_path: Path) -> AsyncIterator[Served]:
    tokens = tmp_path / "tokens"
    tokens.write_text(tokens_text(alice="infer", bob="admin"))
    async with serving(repository, doubles.ADAPTERS, tokens=tokens, allow_load=True) as one:
        yield one


async def status(call: object) -> grpc.StatusCode:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_every_call_wants_a_token_but_health(served: Served) -> None:
    paths = ["/sentiment.v1.SentimentService/Classify", RELOAD]
    paths += [f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ServerLive", "ModelStatistics")]
    for path in [*paths, "/no.such.Service/Method"]:
        for metadata in (None, STRANGER):
            call = served.channel.unary_unary(path)
            assert await status(call(b"", metadata=metadata)) == grpc.StatusCode.UNAUTHENTICATED, path
    health = await HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    reflection = ServerReflectionStub(served.channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    assert await status(reflection.read()) == grpc.StatusCode.UNAUTHENTICATED
    response = await served.inference.ModelInfer(text_request("model", "good"), metadata=ALICE)
    assert response.model_name == "model"


async def test_changing_what_is_served_wants_the_role_admin(served: Served) -> None:
    load, unload = served.inference.RepositoryModelLoad, served.inference.RepositoryModelUnload
    for call, request in (
        (load, oip.RepositoryModelLoadRequest(model_name="model")),
        (unload, oip.RepositoryModelUnloadRequest(model_name="model")),
    ):
        assert await status(call(request, metadata=ALICE)) == grpc.StatusCode.PERMISSION_DENIED
        await served.inference.ModelInfer(text_request("model", "good"), metadata=BOB)
        assert await status(call(request, metadata=BOB)) == grpc.StatusCode.OK
    assert await status(served.inference.ModelInfer(text_request("model", "good"), metadata=ALICE)) == (
        grpc.StatusCode.NOT_FOUND
    )


async def test_a_streams_messages_are_authorised_with_their_stream(served: Served) -> None:
    request = pb.StreamRequest(classify=pb.ClassifyRequest(model="model", texts=["good"], id="1"))
    refused = served.sentiment.ClassifyStream(metadata=STRANGER)
    assert await refused.code() == grpc.StatusCode.UNAUTHENTICATED
    stream = served.sentiment.ClassifyStream(metadata=ALICE)
    await stream.write(request)
    assert (await stream.read()).response.results[0].prediction.label
    await stream.done_writing()


async def test_tokens_are_read_again_without_dropping_a_call(served: Served, tmp_path: Path) -> None:
    stream = served.sentiment.ClassifyStream(metadata=ALICE)
    request = pb.StreamRequest(classify=pb.ClassifyRequest(model="model", texts=["good"], id="1"))
    await stream.write(request)
    assert (await stream.read()).id == "1"
    (tmp_path / "tokens").write_text(tokens_text(carol="infer"))
    served.app.security.reload()
    live = oip.ServerLiveRequest()
    assert await status(served.inference.ServerLive(live, metadata=ALICE)) == grpc.StatusCode.UNAUTHENTICATED
    carol = (("authorization", "Bearer carol-secret"),)
    assert await status(served.inference.ServerLive(live, metadata=carol)) == grpc.StatusCode.OK
    await stream.write(request)
    assert (await stream.read()).response.results[0].prediction.label
    await stream.done_writing()


async def test_a_token_file_that_went_wrong_is_logged_and_the_old_tokens_hold(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokens").write_text("nonsense\n")
    with caplog.at_level(logging.ERROR):
        served.app.security.reload()
    assert "those from before hold" in caplog.text
    assert await status(served.inference.ServerLive(oip.ServerLiveRequest(), metadata=ALICE)) == grpc.StatusCode.OK


async def test_the_http_port_wants_a_token_but_for_probes_which_tell_strangers_no_names(served: Served) -> None:
    def basic(secret: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"anyone:{secret}".encode()).decode()}

    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as session:

        async def get(path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
            async with session.get(path, headers=headers) as response:
                return response.status, await response.text()

        for path in ("/metrics", "/nowhere"):
            for headers in (None, {"Authorization": "Bearer guessed"}, basic("guessed"), {"Authorization": "Basic ?"}):
                assert (await get(path, headers))[0] == 401, path
        async with session.get("/metrics") as response:
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
        assert (await get("/metrics", dict(ALICE)))[0] == 200
        assert (await get("/metrics", basic("alice-secret")))[0] == 200
        assert await get("/healthz") == (200, "ok\n")
        assert await get("/readyz") == (200, "ready\n")
        assert "model@onnxruntime" in (await get("/readyz", dict(ALICE)))[1]


async def test_tls_covers_both_ports_and_plain_text_gets_nowhere(repository: Path, tmp_path: Path) -> None:
    pki = Pki.write(tmp_path / "pki")
    async with serving(repository, doubles.ADAPTERS, pki.channel(), tls_cert=pki.cert, tls_key=pki.key) as served:
        assert (await served.inference.ServerLive(oip.ServerLiveRequest())).live
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.app.grpc_port}") as plain:
            call = plain.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert await status(call(b"")) == grpc.StatusCode.UNAVAILABLE
        trusting = ssl.create_default_context(cafile=str(pki.ca))
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{served.app.http_port}/readyz"
            async with session.get(url, ssl=trusting) as response:
                assert response.status == 200


async def test_client_certificates_are_asked_for_on_both_ports(repository: Path, tmp_path: Path) -> None:
    pki = Pki.write(tmp_path / "pki")
    async with serving(
        repository,
        doubles.ADAPTERS,
        pki.channel(with_client=True),
        tls_cert=pki.cert,
        tls_key=pki.key,
        tls_client_ca=pki.ca,
    ) as served:
        assert (await served.inference.ServerLive(oip.ServerLiveRequest())).live
        async with pki.channel()(served.app) as nameless:
            call = nameless.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert await status(call(b"")) == grpc.StatusCode.UNAVAILABLE
        url = f"https://127.0.0.1:{served.app.http_port}/readyz"
        context = ssl.create_default_context(cafile=str(pki.ca))
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(url, ssl=context)
            context.load_cert_chain(pki.client_cert, pki.client_key)
            async with session.get(url, ssl=context) as response:
                assert response.status == 200


async def test_renewed_certificates_are_shown_to_connections_to_come(repository: Path, tmp_path: Path) -> None:
    pki = Pki.write(tmp_path / "pki")
    async with serving(repository, doubles.ADAPTERS, pki.channel(), tls_cert=pki.cert, tls_key=pki.key) as served:
        assert (await served.inference.ServerLive(oip.ServerLiveRequest())).live
        renewed = Pki.write(tmp_path / "pki")  # another authority, the same files
        served.app.security.reload()
        assert (await served.inference.ServerLive(oip.ServerLiveRequest())).live  # on the old connection
        async with renewed.channel()(served.app) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert oip.ServerLiveResponse.FromString(await call(b"")).live


async def test_reflection_can_be_switched_off(repository: Path) -> None:
    async with serving(repository, doubles.ADAPTERS, reflection=False) as served:
        call = ServerReflectionStub(served.channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        assert await status(call.read()) == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:1", "example.org:1"])
async def test_listening_beyond_this_machine_unprotected_is_warned_of_and_can_be_forbidden(
    repository: Path, tmp_path: Path, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    pki, tokens = Pki.write(tmp_path / "pki"), tmp_path / "tokens"
    tokens.write_text(tokens_text(alice="infer"))
    tls = {"tls_cert": pki.cert, "tls_key": pki.key}
    everything = {"repository": repository, "state": tmp_path / "state"}
    App(ServerConfig.model_validate({**everything, "grpc": address}), adapters=doubles.ADAPTERS)
    assert f"--grpc {address} listens beyond this machine without TLS" in caplog.text
    for protection in ({}, tls, {"tokens": tokens}):
        config = ServerConfig.model_validate({**everything, **protection, "http": address, "require_auth": True})
        with pytest.raises(ConfigurationError, match="--require-auth forbids"):
            App(config, adapters=doubles.ADAPTERS)
    caplog.clear()
    for protection in ({**tls, "tokens": tokens}, {**tls, "tls_client_ca": pki.ca}):
        config = ServerConfig.model_validate({**everything, **protection, "grpc": address, "require_auth": True})
        App(config, adapters=doubles.ADAPTERS)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tls_cert": "cert.pem"}, "TLS needs both"),
        ({"tls_cert": "nowhere.pem", "tls_key": "key.pem"}, "TLS cannot be had from"),
        ({"tls_cert": "cert.pem", "tls_key": "client-key.pem"}, "TLS cannot be had from"),
        ({"tokens": "nowhere"}, "--tokens"),
    ],
)
async def test_security_files_that_cannot_be_used_are_named(
    repository: Path, tmp_path: Path, fields: dict[str, str], message: str
) -> None:
    Pki.write(tmp_path)
    config = {name: tmp_path / file for name, file in fields.items()}
    with pytest.raises(ConfigurationError, match=message):
        App(ServerConfig.model_validate({"repository": repository, **config}), adapters=doubles.ADAPTERS)
