"""Limits of what a query of GraphQL may take, so that nobody who may only look keeps the web server busy.

Nothing here says what a query may ask for. It ends one that takes too long, whatever that is.
"""

import time
from collections.abc import Callable
from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo, OperationType, parse

# The longest query of Dagster's UI has 900.
MOST_TOKENS = 10_000


class TakesTooLong(BaseException):
    """A query has had its time. No `Exception`, which GraphQL would take for the error of one field, and go on."""


def while_there_is_time(resolve: Callable[..., Any], root: Any, info: GraphQLResolveInfo, **arguments: Any) -> Any:
    """Resolve a field of a query, unless the time of the query is over: a middleware of GraphQL.

    A statement that the database executes at that moment is not broken off. It has its own limit.

    Raises:
        TakesTooLong: the time is over. A mutation has no such limit: half of its answer would be worse than a late one.
    """
    if time.monotonic() > info.context.ends_at and info.operation.operation == OperationType.QUERY:
        raise TakesTooLong
    return resolve(root, info, **arguments)


def too_long(query: str) -> GraphQLError | None:
    """What is wrong with the text of a query that has too many words. Dagster says what else is wrong with it."""
    try:
        parse(query, no_location=True, max_tokens=MOST_TOKENS)
    except GraphQLError as error:
        return error if "tokens" in error.message else None
    return None
