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
    found = _strange(step, params_class(), overrides)
    if not found:
        try:
            build(params_class, overrides)
        except ValueError as error:
            found.append(f"{step}: {error}")
    return found


def _strange(
    where: str, defaults: Any, overrides: Mapping[str, Any], whole: bool = False
) -> list[str]:
    """Names that ``defaults`` lacks and values of another kind, a sentence each.

    ``whole``: mappings replace those of ``defaults`` and need not have their names.
    """
    fields = [field.name for field in dataclasses.fields(defaults)]
    found = []
    for name, value in overrides.items():
        if name not in fields:
            known = ", ".join(sorted(fields)) or "none"
            found.append(f"{where} has no parameter {name!r} (it has: {known})")
            continue
        default = getattr(defaults, name)
        if not (_fits_whole if whole else _fits)(value, default):
            wanted = f"a {type(default).__name__} like {default!r}"
            if _is_named(default):
                wanted = f"parameters by name ({', '.join(default)})"
            found.append(f"{where}.{name} is {value!r}; expected {wanted}")
        elif _is_named(default):
            for entry, inner in value.items():
                if inner is not None:
                    base = _entry(default, entry)
                    found += _strange(f"{where}.{name}.{entry}", base, inner, whole=True)
    return found


def build(params_class: type, overrides: Mapping[str, Any]) -> Any:
    """An instance of ``params_class`` with the overrides in place of its defaults.

    A mapping of names to parameters of their own takes further names, and ``None`` for one that
    is not wanted; what an entry leaves out stays as it is, and a mapping in it is replaced whole.
    """
    return _replaced(params_class(), overrides)


def _replaced(defaults: Any, overrides: Mapping[str, Any], whole: bool = False) -> Any:
    changed = {
        name: dict(value)
        if whole and isinstance(value, Mapping)
        else _as_default(f"{name}.", value, getattr(defaults, name))
        for name, value in overrides.items()
    }
    return dataclasses.replace(defaults, **changed)


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
    if _is_named(default):
        return isinstance(value, dict) and all(
            inner is None or isinstance(inner, dict) for inner in value.values()
        )
    if isinstance(default, Mapping):
        return isinstance(value, dict) and (OPEN in default or set(value) <= set(default))
    if isinstance(default, tuple):
        return isinstance(value, list)
    return isinstance(value, type(default))


def _fits_whole(value: Any, default: Any) -> bool:
    if isinstance(default, Mapping):
        return isinstance(value, dict) and all(_fits(one, 0.0) for one in value.values())
    return _fits(value, default)


def _as_default(where: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(value)
    if _is_named(default):
        kept = {name: entry for name, entry in default.items() if name not in value}
        for name, inner in value.items():
            if inner is not None:
                kept[name] = _named(f"{where}{name}", _entry(default, name), inner)
        return {name: kept[name] for name in (*default, *value) if name in kept}
    if isinstance(default, Mapping):
        return {**default, **value}
    if isinstance(default, float):
        return float(value)
    return value


def _named(where: str, base: Any, overrides: Mapping[str, Any]) -> Any:
    try:
        return _replaced(base, overrides, whole=True)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _is_named(default: Any) -> bool:
    """Whether it maps names to parameters of their own."""
    return isinstance(default, Mapping) and any(map(dataclasses.is_dataclass, default.values()))


def _entry(default: Mapping[str, Any], name: str) -> Any:
    """What an entry of such a mapping starts from."""
    return default[name] if name in default else type(next(iter(default.values())))()
