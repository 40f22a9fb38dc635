"""Supermarket promotions: suppliers deliver at any hour, and what follows starts as soon as it can.

Two code locations share it. `deliveries` is `jobs.promotions`: a delivery is copied, loaded and measured. `reports` is
`jobs.promotion_reports`: differences, the dashboard and the notification. They know each other by `contract` only.
"""
