"""How a table is declared, and the words that tables share."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from jobs.signals import measures

S = pa.string()
I32 = pa.int32()
I64 = pa.int64()
F32 = pa.float32()
F64 = pa.float64()
BOOL = pa.bool_()
DATE = pa.date32()
TIME = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(S)
VECTOR = pa.list_(pa.float32())
TEXTS = pa.map_(S, S)

# What a person can do with an item; the source contract has no other.
EVENT_TYPES = (
    "view", "click", "add_to_cart", "purchase", "remove_from_cart", "return", "reject",
)  # fmt: skip

# Joins the steps of a category's path, from the broadest.
BELOW = " > "

# Every source of candidates, in the order in which ties between them are broken.
SOURCES = (
    "buy_again", "considered", "collaborative", "item_to_item", "bought_together",
    "content_neighbours", "trending", "popular", "new_arrivals", "editorial", "two_tower",
)  # fmt: skip

# What a (person, item) is scored by, in the order in which its values are hashed.
FEATURES = (*measures.MEASURES, *(f"{source}_signal" for source in SOURCES))


@dataclass(frozen=True)
class Table:
    """One table: what a row is, which columns name it, and its columns in order."""

    name: str
    step: str
    grain: str
    key: tuple[str, ...]
    schema: pa.Schema


class Tables(dict[str, Table]):
    """Tables by name, in the order in which they are declared."""

    def declare(
        self, name: str, step: str, grain: str, key: str, /, **columns: pa.DataType | tuple
    ) -> None:
        """Add a table whose columns are these, nullable where :func:`maybe` says so."""
        fields = [
            pa.field(column, kind[0], nullable=True)
            if isinstance(kind, tuple)
            else pa.field(column, kind, nullable=False)
            for column, kind in columns.items()
        ]
        self[name] = Table(name, step, grain, tuple(key.split()), pa.schema(fields))


def maybe(kind: pa.DataType) -> tuple[pa.DataType]:
    """A nullable column of this type."""
    return (kind,)
