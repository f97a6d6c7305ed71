"""Build a job's frozen Params from its defaults and the overrides of one run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from jobs.errors import Fault

OPEN = "other"  # a mapping with this entry takes further names; it stands for those not given


def from_json(text: str | None) -> dict[str, dict[str, Any]]:
    """Parse the overrides of a run: ``{"step": {"parameter": value}}``; empty text is none."""
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise Fault(
            f'params: not JSON ({error}); expected {{"step": {{"parameter": value}}}}'
        ) from None
    if not isinstance(parsed, dict) or not all(isinstance(v, dict) for v in parsed.values()):
        raise Fault(f'params: expected {{"step": {{"parameter": value}}}}, got {text!r}')
    return parsed


def faults(step: str, params_class: type, overrides: Mapping[str, Any]) -> list[str]:
    """What is wrong with the overrides of one step, a sentence each; empty when nothing is."""
    fields = {field.name: field for field in dataclasses.fields(params_class)}
    found = []
    for name, value in overrides.items():
        if name not in fields:
            known = ", ".join(sorted(fields)) or "none"
            found.append(f"{step} has no parameter {name!r} (it has: {known})")
        elif not _fits(value, getattr(params_class(), name)):
            default = getattr(params_class(), name)
            found.append(
                f"{step}.{name} is {value!r}; expected a {type(default).__name__} like {default!r}"
            )
    if not found:
        try:
            build(params_class, overrides)
        except ValueError as error:
            found.append(f"{step}: {error}")
    return found


def build(params_class: type, overrides: Mapping[str, Any]) -> Any:
    """An instance of ``params_class`` with the overrides in place of its defaults."""
    known = {
        name: _as_default(value, getattr(params_class(), name)) for name, value in overrides.items()
    }
    return params_class(**known)


def check(condition: bool, sentence: str) -> None:
    """Raise ``ValueError(sentence)`` unless ``condition`` holds; for ``__post_init__``."""
    if not condition:
        raise ValueError(sentence)


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, Mapping):
        return isinstance(value, dict) and (OPEN in default or set(value) <= set(default))
    if isinstance(default, tuple):
        return isinstance(value, list)
    return isinstance(value, type(default))


def _as_default(value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(value)
    if isinstance(default, Mapping):
        return {**default, **value}
    if isinstance(default, float):
        return float(value)
    return value
