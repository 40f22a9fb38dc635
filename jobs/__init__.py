"""What is deployed: one module per code location, each exposing one `defs`."""

import warnings

# Beta in Dagster's pinned version, and used on purpose: the notices would head every command's output.
warnings.filterwarnings("ignore", message="Parameter `(backfill_policy|use_user_code_server)`")
