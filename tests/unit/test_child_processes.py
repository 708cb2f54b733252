"""Child processes run our functions, and nothing that lies in the folder they are started in."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.child_processes import command, environment, stop, wait_through_cancellation


def test_a_child_runs_the_function_with_its_arguments_from_any_folder(tmp_path: Path) -> None:
    for name in ("lockstep.py", "random.py", "click.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of this folder was run')")
    done = subprocess.run(command("lockstep.cli:run", "--version"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lockstep, version ")


def test_another_interpreter_finds_our_package_and_none_of_our_libraries(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    python = str(tmp_path / "other" / "bin" / "python")
    # The worker begins with numpy, which this interpreter lacks: our package was found, our libraries were not.
    words = command("lockstep.server.runtimes.worker:main", "0", "0", python=python)
    done = subprocess.run(words, env=environment(python=python), capture_output=True, text=True)
    assert "No module named 'numpy'" in done.stderr


def test_empty_entries_of_pythonpath_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/some/where{os.pathsep}")
    assert environment()["PYTHONPATH"] == "/some/where"
    assert "PYTHONPATH" not in environment(python="/another/python")
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    assert "PYTHONPATH" not in environment()


def test_threads_and_overrides_reach_the_environment() -> None:
    child = environment({"OMP_NUM_THREADS": "3"}, threads=1)
    assert (child["OMP_NUM_THREADS"], child["MKL_NUM_THREADS"]) == ("3", "1")


async def test_work_that_is_waited_for_through_a_cancellation_ends_before_it() -> None:
    going, ended = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await going.wait()
        ended.set()
        return "done"

    waiting = asyncio.ensure_future(wait_through_cancellation(work()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdin, process.stdout:
        process.stdout.readline()
        stop(process, patience_s=0.05)
    assert process.returncode == -9


def test_a_child_whose_parent_has_ended_before_it_asked_ends_itself() -> None:
    code = "from lockstep.child_processes import die_with_parent; die_with_parent(parent=-1); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "the parent process has ended\n")
