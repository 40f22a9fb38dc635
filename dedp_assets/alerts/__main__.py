"""`python -m dedp_assets.alerts`: the same as `dedp alerts`, as `dedp up` starts it."""

from dedp_assets.alerts.cli import alerts

if __name__ == "__main__":
    alerts()
