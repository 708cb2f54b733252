"""The package as people get it: one top-level name, built, installed and run away from the repository."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = ("server.py", "random.py", "numpy.py", "lockstep.py", "clients/__init__.py", "protos/__init__.py")
"""Files that a user's folder may hold, under names that we or our libraries import."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, which finds the libraries of this one and no second copy."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-deps", "--no-index", wheel]
    alone = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }  # the tests' own, with our folder
    subprocess.run(pip, env=alone, check=True)
    python = folder / "bin" / "python"
    (packages,) = (folder / "lib").glob("python*/site-packages")
    # A path file is read for its lines only: the hook of our editable installation is not run there.
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    return python


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder whose files leave a mark when they are run."""
    monkeypatch.delenv("PYTHONPATH")  # the tests' own: the package is to be found where it is installed
    for name in FOREIGN:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'executed')!r}).write_text(__file__)\n")
    return tmp_path


def test_wheel_holds_one_top_level_package_with_all_that_it_needs(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lockstep"}
    for needed in (
        "lockstep/py.typed",
        "lockstep/protos/sentiment.proto",
        "lockstep/protos/sentiment_pb2.pyi",
        "lockstep/server/web/page/index.html",
        "lockstep/clients/loadtest/page.html.j2",
    ):
        assert needed in names
    licences = {Path(name).name for name in names if "/licenses/" in name}
    vendored = {path.name for path in (ROOT / "server" / "web" / "page" / "vendor").glob("LICENSE-*")}
    assert licences == {"LICENSE", *vendored}


def test_source_distribution_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
    assert not any(member.issym() for member in members)
    names = {member.name.partition("/")[2] for member in members}
    assert {"LICENSE", "lockstep/server/app.py", "lockstep/protos/open_inference.proto"} <= names


def test_client_is_imported_from_the_base_install_in_any_folder(installed: Path, foreign: Path) -> None:
    code = "import lockstep, sys; from lockstep import Client, SyncSentimentClient; print(lockstep.__file__)"
    done = subprocess.run([installed, "-P", "-c", code], cwd=foreign, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed.parents[1]))
    assert not (foreign / "executed").exists()


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["serve", "--help"], ["loadtest", "--help"]])
def test_entry_point_runs_from_any_folder(installed: Path, foreign: Path, words: list[str]) -> None:
    done = subprocess.run([installed.with_name("lockstep"), *words], cwd=foreign, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (foreign / "executed").exists()


def test_installed_server_classifies_from_any_folder(installed: Path, foreign: Path, tiny_repository: Path) -> None:
    (foreign / "texts.jsonl").write_text('{"text": "word1 word2"}\n{"text": "word3"}\n')
    words = [
        "batch",
        "texts.jsonl",
        "answers.jsonl",
        "--local",
        "--repository",
        tiny_repository,
        "--model",
        "tiny-bigru",
    ]
    done = subprocess.run([installed.with_name("lockstep"), *words], cwd=foreign, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((foreign / "answers.jsonl").read_text().splitlines()) == 2
    assert not (foreign / "executed").exists()
