"""Rows that show whether a rule holds of a whole table: a few of its millions.

What a rule about single rows says of a row depends on the values of its columns alone, so it fails
in a table where it fails in one of these rows, and holds where it holds in all of them:

- a rule about presence: a row with a value and a row without one;
- a rule about a range: the rows with the least and the greatest value;
- a rule about a set: a row with each different value, which are as many as in the whole table;

each under every different value of the columns of its condition. They are rows of the table, so to
judge more of them than a rule needs changes nothing. Null is a value of its own, and a NaN is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A rule whose columns have more different values in a chunk is asked of the chunk itself.
MOST_VALUES = 10_000
Coded = tuple[np.ndarray, int]


class Rows:
    """A chunk of a table as rules are shown to hold of it: its columns as numbers."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._values: dict[str, Coded] = {}

    def values(self, name: str) -> Coded:
        """(n_rows,) int32, equal where the column's values are, and how many they can be."""
        if name not in self._values:
            coded = encoded(self.table[name])
            self._values[name] = places(coded), len(coded.dictionary) + 1
        return self._values[name]

    def present(self, name: str) -> np.ndarray | None:
        """(n_rows,) bool: which rows have a value; None where all do."""
        column = self.table[name]
        if pa.types.is_floating(column.type):
            if not (column.null_count or np.isnan(column.to_numpy().min())):
                return None
            column = pc.if_else(pc.is_nan(column), None, column)
        return column.is_valid().to_numpy() if column.null_count else None

    def both(self, name: str) -> np.ndarray:
        """(n,) where a true, a false and no value of this column stand first, if they do."""
        column = self.table[name]
        first = [pc.index(column, value).as_py() for value in (True, False)]
        if column.null_count:
            first.append(pc.index(column.is_null(), True).as_py())
        return np.array([place for place in first if place >= 0])

    def numbers(self, name: str) -> np.ndarray | None:
        """(n_rows,) the column as it is ordered, with any number for none; None if by another."""
        column = self.table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            return None
        return (pc.fill_null(column, 0) if column.null_count else column).to_numpy()

    def groups(self, names: Sequence[str]) -> Coded | None:
        """(n_rows,) int64, equal where the values of these columns are, and how many they can be;
        (1,) of no column, and None where they are too many."""
        codes, count = np.zeros(1, np.int64), 1
        for name in names:
            own, many = self.values(name)
            codes, count = codes * many + own, count * many
            if count > MOST_VALUES:
                return None
        return codes, count


def of(kind: str, names: Sequence[str], rows: Rows) -> np.ndarray | None:
    """(n,) the places of the rows that show a rule of this kind about the first of these columns,
    under a condition about the others; None where it takes too many of them."""
    column, *under = names
    if pa.types.is_nested(rows.table[column].type):
        return None
    if not rows.table.num_rows:
        return np.zeros(0, np.int64)
    groups = rows.groups(under)
    return None if groups is None else KINDS[kind](rows, column, *groups)


def union(found: Iterable[np.ndarray | None]) -> np.ndarray:
    """(n,) the places that are in one of these or more, ascending."""
    return np.unique(
        np.concatenate([np.zeros(0, np.int64), *(at for at in found if at is not None)])
    )


def _presence(rows: Rows, column: str, groups: np.ndarray, count: int) -> np.ndarray | None:
    present = rows.present(column)
    if present is None:
        return _firsts(groups, count)
    return _firsts(groups * 2 + present, count * 2)


def _extremes(rows: Rows, column: str, groups: np.ndarray, count: int) -> np.ndarray | None:
    numbers, present = rows.numbers(column), rows.present(column)
    if numbers is None:
        return None
    if present is None and count == 1:
        return np.array([numbers.argmin(), numbers.argmax()])
    at = np.arange(len(numbers)) if present is None else np.flatnonzero(present)
    group, numbers = np.broadcast_to(groups, len(rows.table))[at], numbers[at]
    least, greatest = np.full(count, numbers.max(initial=0)), np.full(count, numbers.min(initial=0))
    np.minimum.at(least, group, numbers)
    np.maximum.at(greatest, group, numbers)
    ends = (numbers == least[group]) + 2 * (numbers == greatest[group])
    return at[_firsts(group * 4 + ends, count * 4)]


def _each(rows: Rows, column: str, groups: np.ndarray, count: int) -> np.ndarray | None:
    if pa.types.is_boolean(rows.table[column].type) and count == 1:
        return rows.both(column)
    values, many = rows.values(column)
    return _firsts(groups * many + values, count * many) if count * many <= MOST_VALUES else None


KINDS: dict[str, Callable[[Rows, str, np.ndarray, int], np.ndarray | None]] = {
    "expect_column_values_to_not_be_null": _presence,
    "expect_column_values_to_be_null": _presence,
    "expect_column_values_to_be_between": _extremes,
    "expect_column_values_to_be_in_set": _each,
    "expect_column_unique_value_count_to_be_between": _each,
}
PRESENCE = tuple(kind for kind, shown in KINDS.items() if shown is _presence)


def _firsts(codes: np.ndarray, count: int) -> np.ndarray:
    """Where each of the codes, which are below ``count``, stands first."""
    first = np.full(count, -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first[first >= 0]


def encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column in one piece, as places among its different values."""
    if not pa.types.is_dictionary(column.type):
        return column.combine_chunks().dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def places(coded: pa.DictionaryArray) -> np.ndarray:
    """(n_rows,) int32, where each row's value stands in the dictionary; behind its end for null."""
    stand = coded.indices
    return (pc.fill_null(stand, len(coded.dictionary)) if stand.null_count else stand).to_numpy()
