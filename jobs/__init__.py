"""What each step of a night does; the folders show the route of the data."""

import os

# OpenMP's threads give their core away while they wait for each other: beside other work, waiting
# in a loop makes the ranker's training five times as long and a search of FAISS three times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
