"""A night that is read as of an earlier cut."""

from __future__ import annotations

import pytest

from jobs.diagnosis.replay import rebuilding
from jobs.errors import Fault
from tests.conftest import AS_OF


def test_a_night_that_is_cut_off_has_no_history_but_the_one_that_is(lake) -> None:
    then = rebuilding.CutOff(lake, AS_OF, "run", "test", "examples", cut=AS_OF)
    for read in (then.folder, then.arrow):
        with pytest.raises(Fault, match="ask for its frame, which is cut off"):
            read("history")
