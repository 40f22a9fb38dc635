"""The connections to the outside that assets share: PostgreSQL now, and folders of files."""
