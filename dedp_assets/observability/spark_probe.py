"""Asks a Spark Connect server for one row, as Spark's own client does on the wire.

A session of that client would try for minutes, and a process can have one alone.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class NoAnswer(Exception):
    """The server has not given the row. The message says why, without a token; `is_login`: it refuses the token."""

    def __init__(self, message: str, *, is_login: bool = False) -> None:
        super().__init__(message)
        self.is_login = is_login


def ask_for_one_row(remote: str, seconds: float) -> None:
    """Have the server count to one, in a session that ends with it.

    Args:
        remote: The URL of the server, which may have a token in it.
        seconds: How long it may take.

    Raises:
        NoAnswer: It does not do it.
    """
    # Not at the top: this takes a second to import.
    import grpc
    from pyspark.errors import PySparkException
    from pyspark.sql.connect import proto
    from pyspark.sql.connect.client import DefaultChannelBuilder

    # By default gRPC uses `http_proxy` even for a server on this machine.
    direct = [("grpc.enable_http_proxy", 0)] if urlsplit(remote).hostname in _THIS_MACHINE else []
    try:
        builder = DefaultChannelBuilder(remote, direct)
    except PySparkException:
        raise NoAnswer("its URL is malformed") from None
    session: dict[str, Any] = {
        "session_id": str(uuid4()),
        "user_context": proto.UserContext(user_id=builder.userId or "dedp"),
    }
    plan = proto.Plan(root=proto.Relation(range=proto.Range(start=0, end=1, step=1, num_partitions=1)))
    stub: Any = proto.SparkConnectServiceStub
    how: dict[str, Any] = {"timeout": seconds, "metadata": list(builder.metadata())}
    try:
        with builder.toChannel() as channel:
            server = stub(channel)
            answers: Sequence[Any] = list(server.ExecutePlan(proto.ExecutePlanRequest(**session, plan=plan), **how))
            server.ReleaseSession(proto.ReleaseSessionRequest(**session), **how)
    except grpc.RpcError as error:
        raise _named(error, builder.token, seconds) from None
    rows = sum(answer.arrow_batch.row_count for answer in answers)
    if rows != 1:
        raise NoAnswer(f"it gives {rows} rows instead of one")


def _named(error: Any, token: str | None, seconds: float) -> NoAnswer:
    code = error.code().name
    if code == "DEADLINE_EXCEEDED":
        return NoAnswer(f"it has not answered a query within {seconds:g} s")
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return NoAnswer("it does not accept the token", is_login=True)
    said = " ".join((error.details() or "").split())
    if token:
        said = said.replace(token, "...")
    return NoAnswer(f"{code}, {said[:200]}")
