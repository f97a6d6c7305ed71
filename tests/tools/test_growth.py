"""Growth is told against how much larger the data are."""

from __future__ import annotations

from tools import growth


def test_growth_is_the_ratio_of_times_over_the_ratio_of_sizes():
    sizes = [1_000_000, 3_000_000, 12_000_000]
    assert growth.heads(sizes) == ["growth 1 M → 3 M", "growth 3 M → 12 M"]
    assert growth.cells([10.0, 30.0, 60.0], sizes) == ["1.00", "0.50"]


def test_what_took_no_time_has_no_growth():
    assert growth.cells([0.0, 3.0], [1, 2]) == [""]
    assert growth.heads([1_000_000]) == growth.cells([1.0], [1_000_000]) == []
