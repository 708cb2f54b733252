"""What protos/open_inference.proto declares is what others publish: names, numbers, types, oneofs, methods."""

import sys
from pathlib import Path

import pytest

from tests.interop.environments import HERE, environment, told_by
from tests.unit.test_protocol_document import names, rows_under


@pytest.fixture
async def ours() -> dict[str, object]:
    """Everything that our proto declares, by its dotted name."""
    repository = HERE.parents[1]
    return await told_by(
        Path(sys.executable), "published_protocol.py", "lockstep.protos.open_inference_pb2", at=repository
    )


async def test_every_declaration_is_as_tritonclient_publishes_it(ours: dict[str, object], triton_python: Path) -> None:
    published = await told_by(triton_python, "published_protocol.py", "tritonclient.grpc.service_pb2")
    assert len(ours) > 150
    assert {name: one for name, one in ours.items() if published.get(name) != one} == {}


async def test_what_is_published_and_not_declared_is_listed_with_the_reason(
    ours: dict[str, object], triton_python: Path
) -> None:
    """What only an undeclared field or method leads to is not listed by itself."""
    published = await told_by(triton_python, "published_protocol.py", "tritonclient.grpc.service_pb2")
    missing: dict[str, set[str]] = {}
    for name, told in published.items():
        owner, _, member = name.replace("/", ".").rpartition(".")
        if name not in ours and owner in ours and told not in ("message", "enum"):
            missing.setdefault(owner.rpartition(".")[2], set()).add(member)
        elif name not in ours and "/" in name:
            missing.setdefault("methods", set()).add(member)
    listed: dict[str, set[str]] = {}
    for row in rows_under("Not here"):
        owner, members = ("methods", names(row[0])) if len(row) == 2 else (names(row[0])[0], names(row[1]))
        listed.setdefault(owner, set()).update(members)
        assert len(row[-1].split()) > 1, f"{owner}: the reason is not told"
    assert listed == missing


async def test_every_declaration_is_as_kserve_publishes_it_but_for_loading(ours: dict[str, object]) -> None:
    """kserve's messages to load and unload a model have other fields; its gRPC client never sends them."""
    published = await told_by(
        environment("kserve"), "published_protocol.py", "kserve.protocol.grpc.grpc_predict_v2_pb2"
    )
    both = [name for name in ours if name in published and "RepositoryModel" not in name]
    assert len(both) > 70
    assert {name: published[name] for name in both if published[name] != ours[name]} == {}
    missing = [name for name in published if name not in ours and "RepositoryModel" not in name]
    assert missing == []
