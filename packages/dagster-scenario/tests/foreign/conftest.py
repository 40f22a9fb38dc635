"""`orchard` is a project of its own, with its own pytest settings; it is not collected with the tests of this one.

tests/packages/dagster-scenario/src/dagster_scenario/test_foreign_project.py installs it and runs its tests as its team would.
"""

collect_ignore = ["orchard"]
