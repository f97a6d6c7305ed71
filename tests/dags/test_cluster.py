"""The same DAG file on a Spark cluster: a standalone master and two workers on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.spark import free_port
from tests import small_shop

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
MASTER = "org.apache.spark.deploy.master.Master"
WORKER = "org.apache.spark.deploy.worker.Worker"


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """One of the cluster's processes, in a group of its own."""
    import pyspark

    home = Path(pyspark.__file__).parent
    environment = {
        **os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(folder / name), "PYSPARK_PYTHON": sys.executable,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": "-Dspark.master.rest.enabled=false",
    }  # fmt: skip
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [str(home / "bin" / "spark-class"), *arguments],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """A master with two workers of one core: its address and its status page."""
    folder = tmp_path_factory.mktemp("cluster")
    port, page = free_port(), free_port()
    address = f"spark://127.0.0.1:{port}"
    place = ["--host", "127.0.0.1"]
    running = [
        start(folder, "master", MASTER, *place, "--port", str(port), "--webui-port", str(page))
    ]
    for name in ("worker-1", "worker-2"):
        size = ["--cores", "1", "--memory", "1g", "--webui-port", str(free_port())]
        running.append(start(folder, name, WORKER, *place, *size, address))
    status = f"http://127.0.0.1:{page}/json/"
    try:
        deadline = time.monotonic() + 120
        while not re.search(r'"aliveworkers"\s*:\s*2', read(status)):
            assert time.monotonic() < deadline, (folder / "master.log").read_text()[-2000:]
            time.sleep(0.5)
        yield address, status
    finally:
        for process in reversed(running):
            os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            process.wait(30)


def read(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return ""


def test_a_night_runs_on_two_workers_by_changing_the_connection(cluster, tmp_path):
    master, status = cluster
    shop = small_shop.write(tmp_path / "shop", people=120, days=60).folder
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "NIGHTJAR"))}
    settings = '{"spark.executor.memory": "800m", "spark.sql.shuffle.partitions": "2"}'
    connection = f'{{"conn_type": "spark", "host": "{master}", "extra": {{"conf": {settings}}}}}'
    done = subprocess.run(
        [sys.executable, "-m", "tools.night"],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
        env={
            **kept,
            "SOURCE": str(shop), "AS_OF": "2024-03-01", "LAKE": str(tmp_path / "lake"),
            "NIGHTJAR_AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW_CONN_NIGHTJAR_SPARK": connection,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "lake" / "releases" / "CURRENT").exists()
    # The master knows the finished night, and that it had the cores of both workers.
    finished = read(status).partition('"completedapps"')[2]
    assert re.search(r'"cores"\s*:\s*2', finished), finished[:500]
