"""`python -m dedp_assets.observability`: the same as `dedp traces`, as `dedp up` starts it."""

from dedp_assets.observability.cli import traces

if __name__ == "__main__":
    traces()
