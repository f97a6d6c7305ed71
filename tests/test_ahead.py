import threading

import pytest

from jobs.ahead import one_ahead


def test_results_come_in_order_and_only_the_next_is_made_ahead():
    begun: list[int] = []
    second = threading.Event()

    def make(number: int) -> int:
        begun.append(number)
        if number == 2:
            second.set()
        return number * 10

    found = one_ahead(make, [1, 2, 3, 4])
    assert next(found) == 10
    # The second is made without being asked for, and the third is not: it waits for its turn.
    assert second.wait(20)
    assert begun == [1, 2]
    assert list(found) == [20, 30, 40]
    assert begun == [1, 2, 3, 4]


@pytest.mark.parametrize("asked", [[], [7]])
def test_one_or_none_is_made_as_it_is(asked):
    assert list(one_ahead(str, asked)) == [str(one) for one in asked]


def test_a_fault_comes_in_its_place_and_ends_the_making():
    begun = []

    def make(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise ValueError("the second")
        return number

    found = one_ahead(make, [1, 2, 3, 4])
    assert next(found) == 1
    with pytest.raises(ValueError, match="the second"):
        next(found)
    assert begun == [1, 2]
