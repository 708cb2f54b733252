"""A command whose extra is not installed says in one line which one to install."""

import subprocess
import sys
from importlib import metadata

import pytest

from lockstep.cli import COMMANDS

WITHOUT = "import sys; sys.modules[sys.argv.pop(1)] = None; from lockstep.cli import main; main()"
FIRST_NEEDED = {
    "serve": ("uvloop", ["--repository", "models"]),
    "batch": ("pyarrow", ["in.parquet", "out.csv", "--model", "m"]),
    "loadtest": ("hdrh", ["--model", "m"]),
    "compare": ("psutil", ["before.json", "after.json"]),
    "export": ("pydantic", ["keras", "m.keras", "--tokenizer", "t.json", "--labels", "a,b", "--name", "m"]),
}


@pytest.mark.parametrize("command", FIRST_NEEDED)
def test_a_command_without_its_extra_says_which_to_install(
    command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("empty")
    for name in ("before.json", "after.json", "in.parquet", "m.keras", "t.json"):
        (folder / name).write_text("{}")
    module, words = FIRST_NEEDED[command]
    argv = [sys.executable, "-P", "-c", WITHOUT, module, command, *words]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    needed = (
        f"lockstep {command} needs {module}, which is not installed: pip install 'lockstep[{COMMANDS[command].extras}]'"
    )
    assert needed in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_every_extra_that_a_command_names_exists() -> None:
    known = set(metadata.metadata("lockstep").get_all("Provides-Extra") or ())
    for command in COMMANDS.values():
        assert set(filter(None, command.extras.split(","))) <= known
