"""Tells people what is wrong with the system, once per incident, and once more when it is over.

A process of its own does this (`dedp alerts`), because a daemon that has stopped can't say so. Every few seconds it
reads the state of the system from PostgreSQL and asks the code servers (`observing`), judges it by limits (`judging`),
compares it with the incidents that are open (`incidents`), and keeps the messages in a table until they are delivered
(`store`, `delivery`).
"""
