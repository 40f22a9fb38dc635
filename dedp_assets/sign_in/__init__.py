"""Sign-in with roles before Dagster's web server: users, sessions, API tokens, and a log of who did what.

It runs in the process of the web server. `gate` finds out who sends a request, and refuses those it does not know.
`_dagster` has Dagster itself decide what a role may do, whatever the way on which a request has come. See
docs/sign_in.md.
"""
