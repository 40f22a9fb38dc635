"""What exists: one package per pipeline, beside the resources and the generator that they share.

Imports go one way, `jobs -> sensors -> dedp_assets`: nothing here knows when it runs or where it is deployed.
"""
