"""A simulated shop: behaviour of any size with the truth beside it.

``simulated:events=1000000,seed=7`` (see :class:`Shop` for every setting) writes, in the source
contract's shape, ``events``, ``items``, ``people``, ``identity_links``, ``promotions`` and
``recommendation_log``; and beside them, which no job reads, what is true (``truth/``; every file
and column is in docs/simulator.md).

The modules, in the order of what they make: ``settings``; ``spells``, time in pieces; ``goods``,
``crowd`` and ``keys``, what there is; ``serving``, how people answer a list; ``requests``,
``campaigns``, ``visits`` and ``days``, what happens; ``links``, what becomes known of the keys;
``truth``. The same settings give the same rows, whatever the machine.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.sources.simulated import days, requests, settings, truth
from jobs.sources.simulated.crowd import Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.settings import Shop

VERSION = "3"
USAGE = "simulated:events=1000000,seed=7"


def upstream(argument: str | None) -> list[Path]:
    """No files; the settings are checked."""
    parse(argument)
    return []


def options(argument: str | None) -> str:
    """What decides the rows, every default written out."""
    return repr(parse(argument))


def convert(argument: str | None, folder: Path) -> dict[str, Any]:
    """Write the shop; the result counts the rows of each table."""
    shop = parse(argument).sized()
    goods = Goods(shop)
    crowd = Crowd(shop, goods)
    rows = {
        **goods.write(folder), "people": crowd.write(folder), **days.write(folder, goods, crowd),
    }  # fmt: skip
    truth.write_settings(folder, {**asdict(shop), "requests_shown": requests.described(shop)})
    return {**asdict(shop), "rows": rows}


def parse(argument: str | None) -> Shop:
    """``events=1000000,seed=7`` as a shop; raises one ``Fault`` for all that is wrong."""
    return settings.parse(argument.split(",") if argument else [], Shop, "simulated", USAGE)
