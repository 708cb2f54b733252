"""One function in another's place, wherever it is held."""

from __future__ import annotations

import functools
import textwrap as held_by_module
from collections.abc import Callable
from textwrap import shorten
from typing import Any

import pytest

from lockstep.exporters.standins.rebinding import copied, rebound


def plain(text: str, width: int = 3) -> str:
    return text[:width]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


wrapped = decorated(plain)


def test_whoever_holds_the_function_calls_the_other() -> None:
    def closing_over(function: Callable[..., Any] = shorten) -> Any:
        return function("a b", width=9)

    with rebound({shorten: lambda text, width: f"{text}!{width}"}):
        assert shorten("a b", width=9) == "a b!9"
        assert held_by_module.shorten("a b", width=8) == "a b!8"
        assert closing_over() == "a b!9"
    assert shorten("a b", width=9) == "a b"


def test_defaults_are_the_other_s_and_come_back() -> None:
    with rebound({wrapped: lambda text: text * 2}):
        assert wrapped("abcdef") == "abcdefabcdef"
    assert wrapped("abcdef") == "abc"


def test_a_copy_calls_what_it_was() -> None:
    was = copied(wrapped)
    with rebound({wrapped: lambda text: was(text, width=1)}):
        assert wrapped("abcdef") == "a"


def test_an_error_inside_puts_everything_back() -> None:
    with pytest.raises(KeyError), rebound({plain: lambda text: text}):
        raise KeyError
    assert plain("abcdef") == "abc"
