"""`python -m dedp_assets.local_stack.tables`: makes the tables of Dagster's instance, before many processes try to."""

import dagster as dg

if __name__ == "__main__":
    with dg.DagsterInstance.get():
        pass
