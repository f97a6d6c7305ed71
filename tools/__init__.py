"""What runs Nightjar on one machine: set-up, the night in one process, Airflow's UI, questions."""
