"""The user intake: once a day the users of an HTTP API, fetched, checked, and stored by their email."""
