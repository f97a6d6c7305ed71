"""Columns that a gate derives beside a table's own, for its expectations to look at.

A kind whose values depend on more than their own row says so by ``of_all_rows``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Found:
    """True where the row's ``columns`` are those of some row of ``table`` (as ``keys`` there).

    ``where``: only rows of ``table`` with these values count. Null is never found.
    """

    columns: tuple[str, ...]
    table: str
    keys: tuple[str, ...] = ()
    where: tuple[tuple[str, object], ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True)
class Forbidden:
    """True where the item is not for the person: by its region or by one of its restrictions."""

    person: str = "person_id"
    item: str = "item_id"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.person, self.item)


@dataclass(frozen=True)
class Length:
    """How many entries the list in ``column`` has."""

    column: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True)
class Finite:
    """True where the vector in ``column`` holds neither null, NaN nor an infinity."""

    column: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True)
class Same:
    """True where two columns are equal."""

    left: str
    right: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Dense:
    """True where ``column`` is below the number of rows: unique and dense is a numbering."""

    of_all_rows: ClassVar[bool] = True
    column: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True)
class Portion:
    """``value`` where ``column`` starts with one of ``prefixes`` and with none of ``but``, else 0.

    Its sum is the share of a kind of row even where the kind has no row.
    """

    value: str
    column: str
    prefixes: tuple[str, ...]
    but: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.value, self.column)


@dataclass(frozen=True)
class Share:
    """``value`` over the sum of ``value`` where ``column`` starts with one of ``of``, in rows where
    it starts with one of ``prefixes``; 0 in other rows, and where that sum is below ``least``.

    Its sum is the share of a kind of row even where the kind has no row.
    """

    of_all_rows: ClassVar[bool] = True
    value: str
    column: str
    prefixes: tuple[str, ...]
    of: tuple[str, ...]
    least: int = 1

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.value, self.column)


@dataclass(frozen=True)
class Lead:
    """``value`` less the greatest ``value`` of the rows with another ``column``; null if alone."""

    of_all_rows: ClassVar[bool] = True
    value: str
    column: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.value, self.column)


@dataclass(frozen=True)
class Shortfall:
    """What ``right`` lacks of ``left``; below 0 where it is more."""

    left: str
    right: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Elapsed:
    """Hours from the time in ``since`` to the one in ``until``; below 0 where it is the earlier."""

    since: str
    until: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.since, self.until)


Column = (
    Found | Forbidden | Length | Finite | Same | Dense | Portion | Share | Lead | Shortfall
    | Elapsed
)  # fmt: skip
