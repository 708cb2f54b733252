"""A worker under an interpreter of its own, in an environment that holds TensorFlow and nothing else of ours."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.config import BackendConfig, ModelConfig
from tests.serving import serving

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


@pytest.fixture(scope="session")
def tensorflow_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with TensorFlow alone."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), "tensorflow"]
    subprocess.run(install, check=True)
    return python


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_backends_of_two_environments_serve_one_model(tiny_repository: Path, tensorflow_only: Path) -> None:
    for absent in ("onnxruntime", "torch", "pydantic", "tokenizers"):
        found = subprocess.run([tensorflow_only, "-c", f"import {absent}"], capture_output=True)  # noqa: ASYNC221
        assert found.returncode != 0, absent
    section = ModelConfig(backends={"tensorflow": BackendConfig(python=str(tensorflow_only))})
    async with serving(tiny_repository, models={"tiny-bigru": section}) as served:
        answers = []
        for backend in ("onnxruntime", "tensorflow"):
            request = pb.ClassifyRequest(model=f"tiny-bigru@{backend}", texts=["word1 word2 word3", "word4"])
            response = await served.sentiment.Classify(request, timeout=120)
            answers.append([list(result.prediction.probabilities) for result in response.results])
        assert answers[0][0] == pytest.approx(answers[1][0], abs=1e-4)
        assert answers[0][1] == pytest.approx(answers[1][1], abs=1e-4)
        (worker,) = served.batcher("tiny-bigru").backend("tensorflow").workers
        assert psutil.Process(worker.pid).cmdline()[0] == str(tensorflow_only)
