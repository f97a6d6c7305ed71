"""The imports that every step pays for, loaded once where many tasks can share them.

``make run`` loads them while the engine's JVM starts. ``python -m tools.heavy scheduler …`` is
Airflow's scheduler with them loaded: its task processes are forked from it (on Linux), so that a
task of `make ui` starts in a fraction of a second where it would import for three to five.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys

# In the order in which a night needs them.
MODULES = (
    "pyspark.sql.connect.session", "pyspark.sql.connect.functions", "pyarrow.dataset", "pandas",
    "jobs.gate", "great_expectations", "great_expectations.expectations", "scipy.sparse",
    "sklearn.feature_extraction.text", "sklearn.linear_model", "implicit.als", "faiss",
)  # fmt: skip


def load() -> None:
    """Import them all; what is missing shows in the step that needs it, in its own words.

    What they made stays as long as the process: no later collection looks at it again, which
    every step and every gate would wait a fifth of a second for.
    """
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Airflow's command line in a process that has them."""
    load()
    from airflow.__main__ import main as airflow

    sys.argv[0] = "airflow"
    airflow()


if __name__ == "__main__":
    main()
