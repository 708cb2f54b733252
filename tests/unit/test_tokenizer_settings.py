"""What a tokenizer's files say: the longest text, the side that is cut, the padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockstep.exporters.conversion import SourceError
from lockstep.exporters.sources.tokenizer_settings import TokenizerSettings


def settings(folder: Path, config: dict[str, Any] | None = None, **tokenizer: Any) -> TokenizerSettings:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return TokenizerSettings.read(folder / "tokenizer.json")


def truncation(**fields: Any) -> dict[str, Any]:
    return {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0} | fields


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        (None, {}, None),
        ({"model_max_length": 32}, {}, 32),
        ({"max_len": 32}, {}, 32),
        ({"model_max_length": 512}, {"truncation": truncation()}, 128),
        ({"model_max_length": 64}, {"truncation": truncation()}, 64),
        ({"model_max_length": 1000000000000000019884624838656}, {}, None),
        ({"model_max_length": 1e30}, {"truncation": truncation()}, 128),
        ({"model_max_length": None}, {"truncation": None}, None),
    ],
)
def test_the_smallest_limit_binds_and_a_number_beyond_any_text_is_none(
    tmp_path: Path, config: dict[str, Any] | None, tokenizer: dict[str, Any], expected: int | None
) -> None:
    assert settings(tmp_path, config, **tokenizer).max_tokens == expected


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        (None, {}, "right"),
        ({"truncation_side": "left"}, {}, "left"),
        (None, {"truncation": truncation(direction="Left")}, "left"),
        ({"truncation_side": "right"}, {"truncation": truncation(direction="Left")}, "right"),
        ({}, {"truncation": truncation(direction="Left", strategy="OnlyFirst", stride=4)}, "left"),
    ],
)
def test_the_configuration_says_the_side_before_the_tokenizer_does(
    tmp_path: Path, config: dict[str, Any] | None, tokenizer: dict[str, Any], expected: str
) -> None:
    assert settings(tmp_path, config, **tokenizer).truncation_side == expected


def test_a_side_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"tokenizer_config\.json: truncation side 'middle': it is 'right' or 'left'"):
        settings(tmp_path, {"truncation_side": "middle"})


def test_the_configuration_of_the_checkpoint_counts_for_a_tokenizer_from_elsewhere(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    (tmp_path / "tokenizer.json").write_text("{}")
    assert TokenizerSettings.read(tmp_path / "tokenizer.json", checkpoint).max_tokens == 16


@pytest.mark.parametrize("token", ["<unused>", {"content": "<unused>", "lstrip": False}])
def test_the_padding_is_the_token_that_the_configuration_names(tmp_path: Path, token: Any) -> None:
    known = [{"id": 3, "content": "[PAD]"}, {"id": 7, "content": "<unused>"}]
    assert settings(tmp_path, {"pad_token": token}, added_tokens=known).pad_id == 7
    assert settings(tmp_path, {"pad_token": None}, added_tokens=known).pad_id == 3
