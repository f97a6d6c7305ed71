"""What is asked of the engine while arrays are at work: one thing ahead of its use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Asked], Made], asked: Sequence[Asked]) -> Iterator[Made]:
    """``make`` of each, in order; the next is made in a thread of its own while the caller works on
    the one before, so that no more than two are held.

    What ``make`` raises is raised where its result would have come, and nothing is made after it.
    """
    if not asked:
        return
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(make, asked[0])
        for following in asked[1:]:
            made = coming.result()
            coming = thread.submit(make, following)
            yield made
        yield coming.result()
