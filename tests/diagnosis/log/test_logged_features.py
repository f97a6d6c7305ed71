import numpy as np
import pyarrow as pa

from jobs.diagnosis.log import logged_features
from jobs.tables import FEATURES

FIRST, SECOND = FEATURES[:2]
MAP = pa.map_(pa.string(), pa.float64())


def column(maps: pa.MapArray, name: str) -> list[float | None]:
    return logged_features.columns(maps)[FEATURES.index(name)].to_pylist()


def test_maps_become_columns_with_null_for_what_a_map_has_not():
    maps = pa.array(
        [[(SECOND, 2.0), (FIRST, 1.0)], [], [(FIRST, None), ("of another version", 9.0)]], MAP
    )
    assert column(maps, FIRST) == [1.0, None, None]
    assert column(maps, SECOND) == [2.0, None, None]


def test_of_a_name_that_a_map_holds_twice_the_first_counts():
    maps = pa.array([[(FIRST, 1.0), (FIRST, 5.0)], [(FIRST, None), (FIRST, 5.0)]], MAP)
    assert column(maps, FIRST) == [1.0, None]


def test_a_part_of_the_maps_is_read_as_that_part():
    maps = pa.array([[(FIRST, float(n)), (SECOND, -1.0)] for n in range(9)], MAP)
    assert column(maps.slice(3, 4), FIRST) == [3.0, 4.0, 5.0, 6.0]


def test_values_are_those_of_single_precision():
    found = column(pa.array([[(FIRST, 0.1)], [(FIRST, 1e300)]], MAP), FIRST)
    assert found == [float(np.float32(0.1)), np.inf]
