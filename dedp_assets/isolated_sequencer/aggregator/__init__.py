"""The aggregating team's part: loads each file into PostgreSQL, and keeps totals over all loads."""
