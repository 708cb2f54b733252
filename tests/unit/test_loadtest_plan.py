import random
from itertools import islice, pairwise
from pathlib import Path

import pytest

from lockstep.clients.loadtest.plan import LoadPlan, arrival_offsets, legs
from lockstep.clients.loadtest.texts import TextsUnreadable, read_texts, sample_texts


def test_every_round_visits_every_backend_and_none_is_always_first() -> None:
    planned = legs(LoadPlan(model="m", rounds=3, seconds=9), ["a", "b"])
    assert [(leg.round, leg.backend) for leg in planned] == [
        (0, "a"),
        (0, "b"),
        (1, "b"),
        (1, "a"),
        (2, "a"),
        (2, "b"),
    ]
    assert {leg.window_s for leg in planned} == {3}


def test_backends_of_a_round_get_the_same_texts_and_rounds_get_others() -> None:
    seeds = {(leg.round, leg.seed) for leg in legs(LoadPlan(model="m", rounds=3), ["a", "b", "c"])}
    assert len(seeds) == len({seed for _, seed in seeds}) == 3


def test_rows_are_shared_among_the_rounds() -> None:
    plan = LoadPlan(model="m", rounds=3, rows=96, texts_per_call=4)
    assert {leg.calls for leg in legs(plan, ["a"])} == {8}


def test_constant_arrivals_do_not_drift() -> None:
    offsets = list(islice(arrival_offsets("constant", 300.0, random.Random(0)), 3001))
    assert offsets[0] == 0
    assert offsets[-1] == 10.0


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    offsets = list(islice(arrival_offsets("poisson", 50.0, random.Random(7)), 20_000))
    gaps = [later - earlier for earlier, later in pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.03)
    assert variance**0.5 == pytest.approx(mean, rel=0.05)


def test_arrivals_are_the_same_for_a_seed() -> None:
    first, again, other = (list(islice(arrival_offsets("poisson", 5.0, random.Random(seed)), 10)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mode": "open"}, "needs a rate"),
        ({"mode": "open", "rate": 0.0}, "rate is 0.0, and must be positive"),
        ({"rate": 5.0}, "closed loop has no rate"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rows": 2}, "rows is 2: 3 rounds of 1 texts a call need 3"),
        ({"warmup_s": -1.0}, "warmup_s is -1.0"),
        ({"mode": "open", "rate": float("nan")}, "rate is nan, and must be a number"),
        ({"mode": "open", "rate": float("inf")}, "rate is inf, and must be a number"),
        ({"mode": "open", "rate": 1e12}, "rate is 1,000,000,000,000.0, and may be 1,000,000 at most"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": 1e9}, "seconds is 1,000,000,000.0, and may be 86,400 at most"),
        ({"warmup_s": float("inf")}, "warmup_s is inf"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"concurrency": 10**7}, "concurrency is 10,000,000"),
        ({"rounds": 10**7}, "rounds is 10,000,000"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_by_name(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LoadPlan(model="m", **wrong)


def test_texts_are_drawn_without_repeating_until_the_pool_is_used_up() -> None:
    pool = sample_texts(1)
    drawn = list(islice(pool.draw(random.Random(3)), 2 * len(pool.pool)))
    assert sorted(drawn[: len(pool.pool)]) == sorted(drawn[len(pool.pool) :]) == sorted(pool.pool)
    assert drawn[: len(pool.pool)] != drawn[len(pool.pool) :]


def test_texts_come_from_lines_and_from_jsonl(tmp_path: Path) -> None:
    lines, corpus = tmp_path / "texts.txt", tmp_path / "corpus.jsonl"
    lines.write_text("one\n\ntwo two\n")
    corpus.write_text('{"id": 1, "text": "one", "label": 1, "kind": "sentence"}\n"two two"\n')
    assert read_texts(lines).pool == read_texts(corpus).pool == ("one", "two two")


@pytest.mark.parametrize("name", ["t.jsonl", "t.NDJSON"])
def test_a_byte_order_mark_and_other_ends_of_line_in_a_text_are_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes('\ufeff{"text": "one\u2028line"}\r\n"two"\r\n'.encode())
    assert read_texts(tmp_path / name).pool == ("one\u2028line", "two")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "\n \n", "holds no text"),
        ("a.jsonl", '{"text": "x"}\n{"text": 5}\n', r'a.jsonl:2: no string under "text"'),
        ("a.jsonl", "\n{", "a.jsonl:2: not JSON"),
        ("a.jsonl", '"one"\n"half \\ud83d"\n', "a.jsonl:2: not valid Unicode: surrogates not allowed"),
        ("a.jsonl", "9" * 5_000, "a.jsonl:1: not JSON: Exceeds the limit"),
        ("a.ndjson", "[" * 100_000, "a.ndjson:1: not JSON: maximum recursion depth exceeded"),
    ],
)
def test_a_file_that_holds_no_texts_is_refused_by_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TextsUnreadable, match=says):
        read_texts(tmp_path / name)
