"""Hugging Face classifiers are served as their author's own code answers: from text to probability."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.exporters.export import export_model_async
from lockstep.exporters.source import Description, Framework
from lockstep.server.repository.manifest import Manifest
from tests.serving import ids_request, outputs, serving, text_request
from tests.tiny.fixtures import framework_environment
from tests.tiny.huggingface_models import ARCHITECTURES, HELD, LONG_ROW, MODEL_MAX_LENGTH, TEXTS
from tests.tiny.texts import write_texts

ROOT = Path(__file__).resolve().parents[2]
ROUNDING = 5e-5


def run(*arguments: str) -> Any:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.tiny.huggingface_models", *arguments],
        cwd=ROOT,
        env=framework_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


async def test_a_checkpoint_is_served_as_its_loaded_configuration_and_tokenizer_have_it(tmp_path: Path) -> None:
    checkpoint, repository = tmp_path / "checkpoint", tmp_path / "repository"
    own = await asyncio.to_thread(run, "served", str(checkpoint))
    assert own["positions"] == HELD
    assert "tokenizer_config.json says otherwise than tokenizer.json" in own["overruled"]
    # The labels are names of their own: none is in config.json, and these texts have none.
    texts = [json.loads(line)["text"] for line in write_texts(tmp_path / "labelled.jsonl").read_text().splitlines()]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    report = await export_model_async(
        Description(
            name="own",
            framework=Framework.HUGGINGFACE,
            layer="GPT-2",
            tokenizer="tokenizer.json",
            weights=".",
        ),
        checkpoint,
        artifacts=("onnx",),
        verify_with=tmp_path / "texts.jsonl",
        repository=repository,
        slots=asyncio.Semaphore(2),
    )
    assert report.refused == ()
    manifest = Manifest.model_validate_json((repository / "own" / "1" / "manifest.json").read_bytes())
    assert manifest.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert (manifest.max_tokens, manifest.truncation_side) == (MODEL_MAX_LENGTH, "left")
    assert manifest.artifacts[0].activation == "sigmoid"
    async with serving(repository) as server:
        request = text_request("own", *TEXTS)
        request.parameters["truncate"].bool_param = True
        answered = outputs(await server.inference.ModelInfer(request))
        row = ids_request([LONG_ROW], model="own")
        row.parameters["truncate"].bool_param = True
        of_ids = outputs(await server.inference.ModelInfer(row))
    np.testing.assert_allclose(answered["probabilities"], own["probabilities"], atol=ROUNDING)
    assert answered["label"] == [f"LABEL_{np.argmax(one)}" for one in own["probabilities"]]
    assert answered["truncated"] == [False, False, False, True, False]
    assert own["tokens"][3] == MODEL_MAX_LENGTH
    np.testing.assert_allclose(of_ids["probabilities"], [own["long row"]], atol=ROUNDING)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", ["torch2onnx", "torch2pt2"])
def test_no_architecture_minds_what_stands_beyond_the_end_of_a_row(target: str, tmp_path: Path) -> None:
    apart = run(target, str(tmp_path))
    assert set(apart) == set(ARCHITECTURES)
    assert {kind: difference for kind, difference in apart.items() if not difference < 5e-6} == {}
