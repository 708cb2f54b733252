"""Tokens from a file: who is known, who may do what, and what is wrong with a line."""

import hashlib
from pathlib import Path

import pytest

from lockstep.server.core.errors import NotAuthenticated, NotPermitted
from lockstep.server.core.tokens import Role, Tokens, bearer


def line(role: str, name: str, secret: str) -> str:
    return f"{role}  {name}  sha256:{hashlib.sha256(secret.encode()).hexdigest()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# who may call\n\n" + line("infer", "alice", "a-secret") + line("admin", "bob", "b-secret"))
    return path


def test_a_token_is_known_by_its_digest_and_its_role_says_what_it_is_good_for(path: Path) -> None:
    tokens = Tokens(path)
    assert tokens.check("a-secret").name == "alice"
    assert tokens.check("b-secret", Role.ADMIN).name == "bob"
    with pytest.raises(NotPermitted, match="alice's is infer"):
        tokens.check("a-secret", Role.ADMIN)


@pytest.mark.parametrize(
    "secret", ["", "a-secre", "a-secret ", "c-secret", "é", hashlib.sha256(b"a-secret").hexdigest()]
)
def test_anything_else_is_not_known(path: Path, secret: str) -> None:
    with pytest.raises(NotAuthenticated, match="not known"):
        Tokens(path).check(secret)


def test_none_is_told_how_to_show_one(path: Path) -> None:
    with pytest.raises(NotAuthenticated, match="authorization: Bearer"):
        Tokens(path).check(None)


@pytest.mark.parametrize(
    ("header", "secret"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", None), ("x", None), (None, None), ("Bearer", None)],
)
def test_the_bearer_scheme_is_read_whatever_its_case(header: str | None, secret: str | None) -> None:
    assert bearer(header) == secret


def test_reloading_takes_new_tokens_and_keeps_the_old_where_the_file_is_wrong(path: Path) -> None:
    tokens = Tokens(path)
    path.write_text(line("infer", "carol", "c-secret"))
    tokens.reload()
    assert tokens.check("c-secret").name == "carol"
    with pytest.raises(NotAuthenticated):
        tokens.check("a-secret")
    path.write_text("infer carol\n")
    with pytest.raises(ValueError, match="line 1"):
        tokens.reload()
    assert tokens.check("c-secret").name == "carol"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("infer alice\n", "line 1: write `role name"),
        ("\nroot alice sha256:" + "0" * 64, "line 2: the role is 'root'; there are infer, admin"),
        ("infer alice a-secret", "alice's token must be written as"),
        ("infer alice sha256:12", "alice's token must be written as"),
        ("# nobody\n", "holds no token"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_line_and_never_a_secret(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Tokens(path)
    assert "a-secret" not in str(caught.value)
