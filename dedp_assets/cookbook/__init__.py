"""Concepts of Airflow, each as a small example in Dagster. The table: docs/airflow-to-dagster.md."""
