"""No temporary folder, a file that cannot be read, a byte order mark: told in a sentence, without a traceback."""

import codecs
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lockstep.cli import main
from lockstep.exporters.source import Description, Framework
from lockstep.server.app import App
from lockstep.server.config import ConfigurationError, ServerConfig
from lockstep.server.core.tokens import read_tokens
from lockstep.server.repository.catalog import RefusedError, read_version
from tests import doubles
from tests.tiny.texts import write_texts, write_tokenizer

UNREADABLE = Path("/proc/self/mem")  # a file that opens, and fails when it is read, for root too
NOWHERE = "there is no temporary folder that can be written: set TMPDIR to one"


def run(*words: object) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)


@pytest.fixture
def torch_source(tmp_path: Path) -> Path:
    """A folder with all that an export wants to find."""
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "source.py").write_text("")
    write_tokenizer(tmp_path / "tokenizer.json")
    write_texts(tmp_path / "texts.jsonl")
    return tmp_path


def export(folder: Path) -> Result:
    return run(
        *("export", "torch", "source:build", "--weights", folder / "weights.safetensors", "--labels", "a,b"),
        *("--tokenizer", folder / "tokenizer.json", "--verify-with", folder / "texts.jsonl"),
        *("--to", "onnx", "--name", "model", "--repository", folder / "models"),
    )


@pytest.mark.usefixtures("no_temporary_folder")
def test_without_a_temporary_folder_a_file_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / "models").mkdir()
    words = ("--local", "--repository", tmp_path / "models")
    result = run("batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", *words)
    assert (result.exit_code, result.output) == (3, f"Error: {NOWHERE}\n")


@pytest.mark.usefixtures("no_temporary_folder")
def test_without_a_temporary_folder_nothing_is_exported(torch_source: Path) -> None:
    result = export(torch_source)
    assert result.output == f"Error: model: {NOWHERE}\n"


def test_weights_that_cannot_be_read_are_named(torch_source: Path) -> None:
    (torch_source / "weights.safetensors").unlink()
    (torch_source / "weights.safetensors").symlink_to(UNREADABLE)
    result = export(torch_source)
    assert result.output == f"Error: model: {torch_source}/weights.safetensors: Input/output error\n"


def test_a_file_of_a_published_model_that_cannot_be_read_refuses_it_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = doubles.publish(tmp_path, "model")
    opened = Path.open

    def unreadable(path: Path, mode: str = "r") -> object:
        return opened(UNREADABLE if path == folder / "onnx" / "model" else path, mode)

    monkeypatch.setattr(Path, "open", unreadable)
    with pytest.raises(RefusedError, match="model/1: model cannot be read: Input/output error"):
        read_version(folder)


def test_a_repository_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ConfigurationError) as caught:
        App(ServerConfig(repository=tmp_path), adapters=doubles.ADAPTERS)
    assert caught.value.message == f"{tmp_path} cannot be read: Permission denied"


def test_a_byte_order_mark_is_no_part_of_what_is_configured(tmp_path: Path) -> None:
    config, tokens, description = (tmp_path / name for name in ("lockstep.toml", "tokens", "description.json"))
    config.write_bytes(codecs.BOM_UTF8 + b"threads = 3\n")
    assert ServerConfig.read(config, {}).threads == 3
    tokens.write_bytes(codecs.BOM_UTF8 + f"infer me sha256:{'0' * 64}\n".encode())
    assert [token.name for token in read_tokens(tokens)] == ["me"]
    stated = Description(
        name="m", framework=Framework.TORCH, layer="GRU", labels=("a", "b"), tokenizer="t", weights="w"
    )
    description.write_bytes(codecs.BOM_UTF8 + stated.model_dump_json().encode())
    assert Description.read(description) == stated
