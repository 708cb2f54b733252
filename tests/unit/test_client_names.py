import subprocess
import sys

from lockstep import clients

PUBLIC = """
Agreement BackendAnswers BackendLatency CallError Cancelled Client ClientError ClientNotOpen Comparison Conflict
Credentials DeadlineExceeded Duration ForkedAfterUse GatewayLoad InvalidInput LatencyReport LengthLatency
ListedBackend ListedModel ModelList ModelMetadata ModelStatistics NotAuthenticated NotFound NotImplementedThere
NotPermitted OtherEventLoop Overloaded Parity PhaseLatency Phases Prediction RefusedModel Result RetryPolicy
RowError RowsFailed SentimentClient ServedBackend ServedModel ServerFailure ServerMetadata SyncClient
SyncSentimentClient Tensor Unavailable UnloadedModel raise_for_errors
"""


def test_the_public_names_are_frozen() -> None:
    assert sorted(clients.__all__) == sorted(PUBLIC.split())
    for name in clients.__all__:
        assert hasattr(clients, name)


def test_the_client_needs_the_base_install_only() -> None:
    heavy = "numpy plotly jinja2 hdrh psutil rich torch tensorflow onnxruntime click"
    heavy += " lockstep.server lockstep.zoo lockstep.exporters lockstep.cli lockstep.commands"
    code = (
        f"import sys; from lockstep import SyncClient, Client; print([m for m in {heavy.split()} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_importing_the_commands_is_cheap() -> None:
    heavy = "grpc google.protobuf rich asyncio hdrh plotly jinja2 numpy lockstep.clients lockstep.server"
    code = (
        "import sys; import lockstep.commands.classify, lockstep.commands.loadtest;"
        f"print([m for m in {heavy.split()} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
