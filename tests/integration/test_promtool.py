"""`/metrics` held against Prometheus's own linter, where the Debian package prometheus is installed."""

import asyncio
import shutil
from pathlib import Path

import aiohttp
import pytest

from tests import doubles
from tests.serving import serving, text_request

PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here: apt-get install --no-install-recommends prometheus")
async def test_promtool_finds_nothing_to_say(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_call_rows=4) as served:
        await served.inference.ModelInfer(text_request("model", "good", "bad"))
        for bad in ("", *["good"] * 5), ("refuse",):
            call = served.inference.ModelInfer(text_request("model", *bad))
            assert await call.code() != 0
        url = f"http://127.0.0.1:{served.app.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            page = await response.read()
    assert PROMTOOL is not None
    linter = await asyncio.create_subprocess_exec(
        PROMTOOL, "check", "metrics",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await linter.communicate(page)
    assert (linter.returncode, said.decode()) == (0, "")
