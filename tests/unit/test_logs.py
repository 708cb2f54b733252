"""A record is one line, as text or JSON, with its fields and the request id of its call."""

import contextvars
import io
import json
import logging

from lockstep.server.core import request_id
from lockstep.server.logs import JsonFormatter, TextFormatter


def written(formatter: logging.Formatter, **extra: object) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log = logging.Logger("lockstep.test")
    log.addHandler(handler)
    try:
        raise ValueError("by our fault")
    except ValueError as error:
        log.error("it %s", "failed", exc_info=error if extra.pop("traceback", False) else None, extra=extra)
    return stream.getvalue()


def test_json_is_one_object_a_line_with_fields_and_traceback() -> None:
    text = written(JsonFormatter(), fields={"rows": 3, "peer": 'a "quoted"\nname'}, traceback=True)
    assert text.count("\n") == 1
    document = json.loads(text)
    assert (document["level"], document["logger"], document["message"]) == ("ERROR", "lockstep.test", "it failed")
    assert (document["rows"], document["peer"]) == (3, 'a "quoted"\nname')
    assert "ValueError: by our fault" in document["traceback"]
    assert document["time"].endswith("Z")


def test_text_is_one_line_whatever_the_fields_hold() -> None:
    text = written(TextFormatter(), fields={"rows": 3, "peer": "two\nlines", "caller": ""})
    assert text.count("\n") == 1
    assert text.rstrip().endswith('ERROR lockstep.test: it failed rows=3 peer="two\\nlines" caller=""')


def test_a_line_carries_the_request_id_of_the_call_that_it_was_written_for() -> None:
    def answer() -> str:
        request_id.adopt("r-1")
        return written(JsonFormatter())

    assert json.loads(contextvars.Context().run(answer))["request_id"] == "r-1"
    assert "request_id" not in json.loads(contextvars.Context().run(written, JsonFormatter()))


def test_an_id_is_made_once_and_a_callers_own_is_cut() -> None:
    def answer() -> tuple[str, str]:
        return request_id.request_id(), request_id.request_id()

    first, second = contextvars.Context().run(answer)
    assert first == second
    assert len(first) == 16

    def adopted() -> str:
        request_id.adopt("x" * 1000)
        return request_id.request_id()

    assert contextvars.Context().run(adopted) == "x" * 128
