"""What a state of the code is called: a digest of what Python files do, whatever they say of it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def of(parts: Collection[str], without: Collection[str] = (), root: Path = ROOT) -> str:
    """Names the code in these files and folders below ``root``, but for those ``without``;
    comments, docstrings and the form of lines do not count."""
    found = hashlib.sha256()
    for path in sorted({path for part in parts for path in _files(root / part)}):
        name = path.relative_to(root).as_posix()
        if not any(name == one or name.startswith(f"{one}/") for one in without):
            found.update(f"{name}\0{_done(path.read_bytes())}\0".encode())
    return found.hexdigest()[:12]


def _files(part: Path) -> list[Path]:
    return [part] if part.suffix == ".py" else list(part.rglob("*.py"))


@cache
def _done(text: bytes) -> str:
    """A digest of what the text of a module makes Python do."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
