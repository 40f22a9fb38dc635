"""The aggregating team's side: loads each file into PostgreSQL and keeps the all-time totals."""
