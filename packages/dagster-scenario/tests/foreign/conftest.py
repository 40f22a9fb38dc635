"""`orchard` is a project of its own, with its own pytest settings; it is not collected with the tests of this one.

test_foreign_project.py, one folder above, installs it and runs its tests as its team would.
"""

collect_ignore = ["orchard"]
