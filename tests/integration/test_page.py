"""The page for people, in a real headless browser against a real server."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error, Locator, Page, expect

from lockstep.protos import open_inference_pb2 as oip
from tests import doubles
from tests.browser import CHROMIUM, TIMEOUT_MS, Tab, chromium, tab
from tests.integration.test_security import tokens_text
from tests.serving import Served, eventually, serving, text_request

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),
]
expect.set_options(timeout=TIMEOUT_MS)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as one:
        yield one


@asynccontextmanager
async def opened(browser: Browser, served: Served, **context: Any) -> AsyncIterator[Tab]:
    """Open the page and wait for its first figures."""
    async with tab(browser, served.app.http_port, **context) as one:
        await one.page.goto(f"{one.origin}/")
        await expect(one.page.locator("#now")).to_be_visible()
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS) as one:
        yield one


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Text", exact=True).fill(text)
    await page.get_by_role("button", name="Compare").click()


def answer_of(page: Page, backend: str) -> Locator:
    return page.locator(f".answers tr[data-backend={backend}]")


async def test_a_sentence_is_answered_by_every_backend_with_its_time_by_phase(browser: Browser, served: Served) -> None:
    async with opened(browser, served) as one:
        await ask(one.page, "a good film")
        negative, positive = doubles.row_logits(doubles.encode("a good film"))
        label = "positive" if positive > negative else "negative"
        for backend in ("onnxruntime", "tensorflow"):
            row = answer_of(one.page, backend)
            await expect(row.locator(".score strong")).to_have_text(label)
            await expect(row.locator("dd")).to_have_count(7)
            phases = row.get_by_role("img", name=re.compile(r"decode .* ms, tokenize .* ms, .*execute .* ms"))
            await expect(phases).to_have_count(1)
            await expect(row).to_contain_text("alone, 5 tokens")
        verdict = one.page.locator(".verdict")
        await expect(verdict).to_contain_text(f"Both backends agree: {label}")
        await expect(verdict).to_contain_text("Largest difference between any two probabilities: 0.")


async def test_markup_in_a_text_is_shown_and_never_run(browser: Browser, served: Served) -> None:
    text = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script> good"
    async with opened(browser, served) as one:
        await one.page.get_by_label("Cut a text that is too long").check()
        await ask(one.page, text)
        await expect(one.page.locator("blockquote")).to_have_text(text)
        await expect(answer_of(one.page, "onnxruntime").locator(".score")).to_be_visible()
        assert await one.page.locator(".answers img, .answers script").count() == 0
        assert await one.page.title() == "Lockstep"


async def test_a_text_beyond_the_models_maximum_is_refused_with_its_reason_or_cut(
    browser: Browser, served: Served
) -> None:
    async with opened(browser, served) as one:
        await ask(one.page, "good " * 100)
        failure = one.page.get_by_role("alert")
        await expect(failure).to_contain_text("InputTooLong")
        await expect(failure).to_contain_text("64")
        one.forgive("413")
        await one.page.get_by_label("Cut a text that is too long").check()
        await one.page.get_by_role("button", name="Compare").click()
        await expect(one.page.locator(".verdict")).to_contain_text("The text was cut to 64 tokens.")
        await expect(failure).to_have_count(0)


async def test_a_pasted_megabyte_is_not_sent_and_the_page_says_why(browser: Browser, served: Served) -> None:
    async with opened(browser, served) as one:
        await one.page.get_by_label("Text", exact=True).fill("good film " * 100_000)
        await expect(one.page.locator("#text-size")).to_contain_text("this server takes 256 KiB at most")
        await expect(one.page.get_by_role("button", name="Compare")).to_be_disabled()
        await ask(one.page, "good")
        await expect(one.page.locator(".verdict")).to_contain_text("agree")


async def test_a_backend_that_dies_of_a_text_is_shown_beside_those_that_answer(
    browser: Browser, served: Served
) -> None:
    async with opened(browser, served) as one:
        await ask(one.page, "kill a film")
        await expect(answer_of(one.page, "onnxruntime")).to_contain_text("RowFailed")
        await expect(answer_of(one.page, "tensorflow").locator(".score")).to_be_visible()
        await expect(one.page.locator(".verdict")).to_contain_text("1 backend gave no answer")
        restarts = one.page.locator("#health tr[data-backend=onnxruntime] td[data-title=Restarts]")
        await expect(restarts).to_have_text(re.compile(r"^[1-9]"))


async def test_what_is_down_and_what_was_refused_say_why(browser: Browser, tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model", ("onnx", "torch"))
    folder = doubles.publish(tmp_path, "broken")
    (folder / "onnx/model").write_bytes(b"changed")
    async with serving(tmp_path, doubles.ADAPTERS) as served, opened(browser, served) as one:
        await expect(one.page.locator("#status")).to_contain_text("1 refused")
        await expect(one.page.locator("[data-refused=broken]")).to_contain_text("sha256")
        await ask(one.page, "good")
        await expect(answer_of(one.page, "torch")).to_contain_text("cannot be loaded")
        await expect(answer_of(one.page, "onnxruntime").locator(".score")).to_be_visible()
        await expect(one.page.locator(".verdict")).to_contain_text("Only onnxruntime answered")
        torch = one.page.locator("#health tr[data-backend=torch]")
        await expect(torch).to_contain_text("down")
        await expect(torch).to_contain_text("this artifact cannot be loaded")


async def test_a_model_that_is_unloaded_goes_on_being_shown_as_unloaded(browser: Browser, tmp_path: Path) -> None:
    doubles.publish(tmp_path, "first", version=3)
    doubles.publish(tmp_path, "second")
    async with serving(tmp_path, doubles.ADAPTERS, allow_load=True) as served, opened(browser, served) as one:
        await served.inference.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="first"))
        gone = one.page.locator("[data-unloaded=first]")
        await expect(gone).to_contain_text("first version 3 is not served")
        await expect(gone).to_contain_text("unloaded; it takes no calls until it is loaded again")
        await expect(one.page.locator("#status")).to_have_text("● ready, 1 model, 1 unloaded")
        await expect(one.page.locator("[data-model=first]")).to_have_count(0)
        await served.inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="first"))
        await expect(one.page.locator("[data-model=first]")).to_be_visible()
        await expect(gone).to_have_count(0)
        one.complaints = [said for said in one.complaints if "404" not in said]  # the poll that met the unloading


async def call_with_every_round(served: Served, page: Page) -> None:
    """Send eight rows whenever the page asks for its figures: they stay in the window, however slow the machine is."""
    while True:
        await served.inference.ModelInfer(text_request("model", *["good film"] * 8))
        await page.wait_for_event("request", lambda request: "/api/live" in request.url)


async def test_live_figures_move_with_the_traffic_of_others(browser: Browser, served: Served) -> None:
    async with opened(browser, served) as one:
        now = one.page.locator("#now tr[data-backend=onnxruntime]")
        await expect(one.page.locator("#no-traffic")).to_be_visible()
        await expect(now.locator("td[data-title=p50]")).to_have_text("–")
        traffic = asyncio.create_task(call_with_every_round(served, one.page))
        await expect(one.page.locator("#no-traffic")).to_have_count(0)
        await expect(now.locator("td[data-title=p50]")).to_have_text(re.compile(r"^[\d.]+ ms$"))
        await expect(now.locator("td[data-title='Rows/s']")).to_have_text(re.compile(r"[1-9]"))
        await expect(now.locator("td[data-title=Batch]")).to_have_text("8.00 rows")
        await expect(now.locator("td[data-title=Padding]")).to_have_text("1.00×")
        sizes = one.page.get_by_role("img", name=re.compile(r"onnxruntime, \d+ batch.*≤8: 100 %"))
        await expect(sizes).to_have_count(1)
        p50 = one.page.get_by_role("img", name=re.compile(r"Latency, p50\. Latest: onnxruntime: [\d.]+ ms"))
        await expect(p50).to_have_count(1)
        assert await p50.locator("canvas").count() == 1
        await expect(one.page.locator(".breakdown")).to_contain_text("execute")
        traffic.cancel()


async def test_rows_that_wait_are_seen_waiting(browser: Browser, served: Served) -> None:
    async with opened(browser, served) as one:
        batcher = served.batcher("model")
        batcher.hold()
        call = served.inference.ModelInfer(text_request("model", *["good"] * 12))
        await eventually(lambda: batcher.queued_rows == 12)
        await expect(one.page.locator("#queued")).to_have_text("12")
        batcher.release()
        await call
        await expect(one.page.locator("#queued")).to_have_text("0")


async def test_a_server_that_goes_away_is_said_to_be_gone_and_found_again(browser: Browser, served: Served) -> None:
    async with opened(browser, served) as one:
        await one.page.route("**/api/**", lambda route: route.abort("connectionrefused"))
        await expect(one.page.locator("#status")).to_contain_text("no answer")
        await expect(one.page.locator("#live")).to_contain_text("The server does not answer")
        await expect(one.page.locator("#now")).to_be_visible()  # what was known stays
        await ask(one.page, "good")
        await expect(one.page.locator(".results")).to_contain_text("Unreachable")
        await one.page.unroute("**/api/**")
        await expect(one.page.locator("#status")).to_contain_text("ready, 1 model")
        one.forgive("ERR_CONNECTION_REFUSED")


async def test_a_hidden_tab_asks_nothing_and_asks_at_once_when_it_is_seen_again(
    browser: Browser, served: Served
) -> None:
    async with tab(browser, served.app.http_port) as one:
        await one.page.clock.install()
        await one.page.add_init_script(
            "Object.defineProperty(document, 'hidden', { get: () => window.isHidden === true });"
        )
        await one.page.goto(f"{one.origin}/")
        await expect(one.page.locator("#now")).to_be_visible()
        turn = "hidden => { window.isHidden = hidden; document.dispatchEvent(new Event('visibilitychange')); }"
        await one.page.evaluate(turn, True)
        asked = len(one.requests)
        await one.page.clock.run_for(600_000)
        assert len(one.requests) <= asked + 1  # what was on its way; seen, it would have asked hundreds of times
        async with one.page.expect_request("**/api/live*"):
            await one.page.evaluate(turn, False)


async def test_the_page_and_its_calls_want_a_token(browser: Browser, tmp_path: Path) -> None:
    doubles.publish(tmp_path / "models", "model")
    tokens = tmp_path / "tokens"
    tokens.write_text(tokens_text(alice="infer"))
    async with serving(tmp_path / "models", doubles.ADAPTERS, tokens=tokens) as served:
        async with tab(browser, served.app.http_port) as stranger:
            with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # the prompt, which nobody fills in here
                await stranger.page.goto(f"{stranger.origin}/")
        known = {"username": "anyone", "password": "alice-secret"}
        async with opened(browser, served, http_credentials=known) as one:
            await ask(one.page, "a good film")
            await expect(one.page.locator(".verdict")).to_contain_text("Both backends agree")
            tokens.write_text(tokens_text(carol="infer"))
            served.app.security.reload()
            await expect(one.page.locator("#status")).to_contain_text("NotAuthenticated")
            await expect(one.page.locator("#live")).to_contain_text("the token is not known to this server")
            one.forgive("401")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
async def test_the_page_fits_narrow_and_wide_windows_and_follows_the_colour_scheme(
    browser: Browser, served: Served, width: int, scheme: str
) -> None:
    async with opened(browser, served, viewport={"width": width, "height": 900}, color_scheme=scheme) as one:
        await ask(one.page, "a good film")
        await expect(one.page.locator(".verdict")).to_be_visible()
        assert await one.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        red, green, blue = await one.page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
        )
        assert (red + green + blue < 3 * 128) == (scheme == "dark")


async def test_the_keyboard_alone_compares(browser: Browser, served: Served) -> None:
    async with opened(browser, served) as one:
        text = one.page.get_by_label("Text", exact=True)
        await text.focus()
        await text.press("Control+A")
        await one.page.keyboard.type("a bad film")
        await one.page.keyboard.press("Control+Enter")
        await expect(one.page.locator("blockquote")).to_have_text("a bad film")
        await expect(one.page.locator(".verdict")).to_contain_text("agree")


async def test_another_model_is_picked_once_for_comparing_and_watching(browser: Browser, tmp_path: Path) -> None:
    doubles.publish(tmp_path, "first")
    doubles.publish(tmp_path, "second", ("onnx",))
    async with serving(tmp_path, doubles.ADAPTERS) as served, opened(browser, served) as one:
        await one.page.locator("#try").get_by_role("combobox", name="Model").select_option("second")
        await expect(one.page.locator("#live").get_by_role("combobox", name="Model")).to_have_value("second")
        await expect(one.page.locator("#now tr[data-backend]")).to_have_count(1)
        await ask(one.page, "good")
        await expect(one.page.locator(".verdict")).to_contain_text("onnxruntime is the only backend")
        statistics = await served.inference.ModelStatistics(oip.ModelStatisticsRequest(name="second"))
        assert statistics.model_stats[0].inference_count == 1
