"""The engine of a run on a lake: started when the run opens, or when a step first needs one.

A night needs Spark from its second step on. A refresh goes on from its base in memory, and asks an
engine only where too much changed for that: it promises one, which is started where a step asks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from jobs import lock, spark
from jobs.io import Lake
from jobs.spark import Engine, Promise, engine_file, promise_file

log = logging.getLogger("nightjar")


def of(lake: Lake) -> Engine:
    """A run's engine; raises ``Fault`` where there is none and none is promised."""
    if not engine_file(lake).exists() and promise_file(lake).exists():
        with lock.alone(lake):
            if not engine_file(lake).exists():
                promised = Promise.load(promise_file(lake))
                start(lake, promised.master, promised.conf)
    return Engine.load(engine_file(lake))


def start(lake: Lake, master: str, conf: Mapping[str, str]) -> None:
    """Start an engine for the run on a lake, and note where it is."""
    engine = spark.start(master, lake.root / ".night" / "spark.log", conf)
    engine.save(engine_file(lake))
    # Behind the ; of an address there may be a token.
    shown = [text.partition(";")[0] for text in (engine.url, engine.master)]
    log.info("engine=%s master=%s", *shown)


def promise(lake: Lake, master: str, conf: Mapping[str, str]) -> None:
    """Have an engine started when a step first needs one."""
    spark.check(master)
    Promise(master, conf).save(promise_file(lake))


def stop(lake: Lake) -> None:
    """End the engine of a run, if it has one; the caller is ``lock.alone``."""
    promise_file(lake).unlink(missing_ok=True)
    if engine_file(lake).exists():
        Engine.load(engine_file(lake)).stop()
        engine_file(lake).unlink()
