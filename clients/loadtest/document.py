"""Frozen dataclasses as JSON and back, by their type hints. Knows no report in particular."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class DocumentInvalid(ValueError):
    """A document does not fit its type; names the path of the value at fault."""


def to_document(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain dicts, lists, strings and numbers."""
    return asdict(value)


def from_document(kind: type[T], document: object) -> T:
    """Read a dataclass; raises `DocumentInvalid` for a missing, unknown or ill-typed field.

    A field that has a default may be missing: an older document has not got it.
    """
    value: T = _read(kind, document, kind.__name__)
    return value


def _read(hint: Any, value: object, path: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _read_dataclass(hint, value, path)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = (arg for arg in args if arg is not type(None))
        return _read(inner, value, path)
    if origin is Literal:
        if value not in args:
            raise DocumentInvalid(f"{path} is {value!r}, and must be one of {args}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise DocumentInvalid(f"{path} is {value!r}, and must be a list")
        return tuple(_read(args[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise DocumentInvalid(f"{path} is {value!r}, and must be an object")
        return {str(key): _read(args[1], item, f"{path}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise DocumentInvalid(f"{path} is {value!r}, and must be {hint.__name__}")
    return value


def _read_dataclass(kind: Any, value: object, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise DocumentInvalid(f"{path} is {value!r}, and must be an object")
    names = [field.name for field in fields(kind)]
    needed = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
    missing, unknown = sorted(needed - set(value)), sorted(set(value) - set(names))
    if missing or unknown:
        raise DocumentInvalid(f"{path}: missing {missing}, unknown {unknown}")
    hints = get_type_hints(kind)
    try:
        return kind(**{name: _read(hints[name], value[name], f"{path}.{name}") for name in names if name in value})
    except ValueError as error:
        if isinstance(error, DocumentInvalid):
            raise
        raise DocumentInvalid(f"{path}: {error}") from error
