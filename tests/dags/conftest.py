"""Airflow's environment for these tests, set before anything imports airflow."""

from __future__ import annotations

import os
import tempfile

# A home of the tests' own: nobody's runs are touched. Removed with the session's other files.
os.environ.setdefault("NIGHTJAR_AIRFLOW_HOME", tempfile.mkdtemp(prefix="nightjar-airflow-"))

from tools import airflow_home

airflow_home.set_environment()
