"""The zoo's own source, read as text: which modules a model is made of, and how many lines it takes.

Owns both questions. Imports none of the modules that it reads, so it needs no framework.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "lockstep.zoo."
NEUTRAL = frozenset(
    {
        "lockstep.zoo.corpus",
        "lockstep.zoo.folders",
        "lockstep.zoo.learning",
        "lockstep.zoo.registry",
        "lockstep.zoo.tokenizer",
    }
)
"""Modules whose text decides nothing of a model: what they make of the texts counts by its result."""
SHARED = frozenset({"lockstep.zoo.batches"})
"""Modules that every framework uses alike, so that their lines tell no framework from another."""


def source_file(module: str) -> Path:
    """Return the file of a module without importing it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source file of {module}", name=module)
    return Path(spec.origin)


def modules(start: Iterable[str]) -> tuple[str, ...]:
    """Return the modules of `start` and all of the zoo that they import, by themselves or through others."""
    found: dict[str, None] = {}
    waiting = list(start)
    while waiting:
        module = waiting.pop(0)
        if module not in found:
            found[module] = None
            tree = ast.parse(source_file(module).read_bytes())
            waiting += [name for name, _, _ in _imports(tree) if name not in NEUTRAL]
    return tuple(found)


def lines_of_code(*targets: str) -> int:
    """Count the lines that the functions `package.module:function` take, with all of the zoo that they use.

    A line counts where it holds code: blank lines, comments, docstrings and imports do not. What every
    framework shares (`SHARED`, `NEUTRAL`) and what other packages define does not count either. A definition
    that is used twice counts once.
    """
    read: dict[str, _Module] = {}
    counted: set[tuple[str, str]] = set()
    lines: set[tuple[str, int]] = set()
    waiting = [_split(target) for target in targets]
    while waiting:
        place = waiting.pop()
        if place in counted:
            continue
        counted.add(place)
        module_name, name = place
        if module_name not in read:
            read[module_name] = _Module(source_file(module_name))
        module = read[module_name]
        if name in module.definitions:
            node = module.definitions[name]
            lines |= {(module_name, line) for line in module.code_lines(node)}
            waiting += [(module_name, used) for used in _names(node)]
        elif name in module.imported and module.imported[name][0] not in NEUTRAL | SHARED:
            waiting.append(module.imported[name])
    return len(lines)


class _Module:
    """One file: its top-level definitions by name, and what it imports from the zoo."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        self.definitions: dict[str, ast.stmt] = {}
        for node in tree.body:
            for name in _defined(node):
                self.definitions[name] = node
        self.imported = {bound: (module, name) for module, name, bound in _imports(tree)}
        self._held = _lines_that_hold_code(text) - set(_docstring_lines(tree))

    def code_lines(self, node: ast.stmt) -> set[int]:
        """Return the numbers of the lines of a definition, its decorators too, that hold code."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return {line for line in range(first, (node.end_lineno or first) + 1) if line in self._held}


def _split(target: str) -> tuple[str, str]:
    module, _, name = target.partition(":")
    return module, name


def _imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield (module, name, name it is bound to) of each `from lockstep.zoo.module import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            for alias in node.names:
                yield node.module, alias.name, alias.asname or alias.name


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _names(node: ast.stmt) -> set[str]:
    return {used.id for used in ast.walk(node) if isinstance(used, ast.Name)}


def _lines_that_hold_code(text: str) -> set[int]:
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            held.update(range(token.start[0], token.end[0] + 1))
    lines = text.splitlines()
    return {number for number in held if lines[number - 1].strip()}  # a string may hold blank ones


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of every string that stands as a statement: a docstring, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
