"""Airflow's environment for these tests, set before anything imports airflow."""

from __future__ import annotations

import os
import tempfile

from tools import airflow_home

# A home of the tests' own, so that nobody's runs are touched; it goes when this process ends.
HOME = tempfile.TemporaryDirectory(prefix="nightjar-airflow-")
os.environ["NIGHTJAR_AIRFLOW_HOME"] = HOME.name
airflow_home.set_environment()
