"""The floors of the house, held by a test: who may import whom, and where frameworks may appear."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("lockstep", "server", "clients", "exporters", "zoo", "protos")
FRAMEWORKS = {"torch", "tensorflow", "keras", "tf_keras", "onnxruntime", "onnx", "tf2onnx", "onnxscript"}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def test_import_contracts_hold() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_frameworks_are_imported_inside_functions_of_server_and_lockstep_only() -> None:
    for path in modules():
        if path.parts[len(ROOT.parts)] not in ("server", "lockstep", "clients"):
            continue
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            top = {name.partition(".")[0] for name in names}
            assert not top & FRAMEWORKS, path


def test_no_module_is_named_after_the_standard_library() -> None:
    for path in modules():
        assert path.stem not in sys.stdlib_module_names or path.stem.startswith("__"), path


def test_a_worker_imports_nothing_but_numpy_and_the_standard_library() -> None:
    code = """
import sys, lockstep.server.runtimes.worker
third_party = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(sorted(name for name in third_party if not name.startswith('_')))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['lockstep', 'numpy']"
