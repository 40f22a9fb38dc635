"""Stands before Dagster's web server, and lets through whom it knows.

Each request needs a user, except for those to the three paths of the sign-in itself and to /healthz. Who the user is
comes from a session (a browser), an API token or a password (a script). What the user may do is decided later: by
`_dagster` when Dagster executes the request.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote

import psycopg2
from anyio import to_thread
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dedp_assets.pages.rendering import SECURITY_POLICY, template
from dedp_assets.sign_in import audit, http_rules, passwords, sessions, throttling, users
from dedp_assets.sign_in._dagster import VISITOR, Visitor
from dedp_assets.sign_in.attempts import Attempts, TooManyAttempts
from dedp_assets.sign_in.database import Database
from dedp_assets.sign_in.errors import UserError
from dedp_assets.sign_in.http_rules import Basic
from dedp_assets.sign_in.roles import Role
from dedp_assets.sign_in.users import User

T = TypeVar("T")

_HEALTH, _SIGN_IN, _PASSWORD, _SIGN_OUT = "/healthz", "/sign-in", "/sign-in/password", "/sign-out"
_LONGEST_FORM = 8 * 1024
# Dagster reads the whole body of a request into memory. A backfill of 100,000 partitions is 3 MB.
_LONGEST_BODY = 32 * 1024 * 1024
# How many passwords are compared at once. Each takes 19 MiB.
_AT_ONCE = 2
# How many requests of one user Dagster answers at once; the others wait. It has 40 threads for those of all.
_OF_ONE_USER = 20
# How soon a connection ends whose session has.
_RECHECK_SECONDS = 5.0
# How often what is over is deleted, if somebody tries to sign in.
_FORGET_SECONDS = 600.0
_UNKNOWN = "(unknown)"
_POLICY = f"{SECURITY_POLICY}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_MAY_DO = {
    Role.viewer: "You see everything, and change nothing.",
    Role.launcher: "You see everything, and start, repeat and end runs and backfills.",
    Role.admin: "You may do everything: runs, sensors, schedules, code locations, pools and history.",
}
_HOW = "send an API token (Authorization: Bearer ...) or a name and a password (curl -u), or sign in at {path}"


class Gate:
    """An ASGI app that asks who is there before it calls another one."""

    def __init__(self, database: Database, app: ASGIApp, prefix: str = "") -> None:
        """Make it.

        Args:
            database: Where the users are.
            app: Dagster's web server.
            prefix: The path below which that is.
        """
        self._database, self._app, self._prefix = database, app, prefix
        self._home = f"{prefix}/"
        self._attempts = Attempts()
        self._failures = throttling.Sample(size=100, seconds=10)
        self._forgotten_at = float("-inf")
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_OF_ONE_USER))
        self._comparing = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sign-in")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):  # the start and the end of the server
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._response(request)
        except (psycopg2.Error, SQLAlchemyError):
            response = PlainTextResponse("The database of the users does not answer. Try again soon.", 503)
        if response is None:
            async with self._turns[request.scope[VISITOR].user.name]:
                await self._app(scope, _at_most(_LONGEST_BODY, receive), _for_one_user(send))
        else:
            await response(scope, receive, send)

    async def _response(self, request: Request) -> Response | None:
        """Our own answer, or `None` if Dagster is to answer. Then the scope has the visitor."""
        path = request.scope["path"].removeprefix(self._prefix)
        if path == _HEALTH:
            return PlainTextResponse("ok\n")
        changes = request.method not in ("GET", "HEAD")
        if changes and http_rules.is_from_another_site(request.headers):
            return JSONResponse({"error": "a page of another site has sent this; it is refused"}, 403)
        if path == _SIGN_IN and changes:
            return await self._sign_in(request)
        if path == _SIGN_OUT and changes:
            return await self._sign_out(request)
        try:
            visitor = await self._visitor(request.scope)
        except TooManyAttempts as error:
            return _too_many(error, JSONResponse({"error": "too many wrong passwords; try again later"}, 429))
        if path == _SIGN_IN:
            next_path = http_rules.own_path(request.query_params.get("next", ""), self._home)
            return self._page(user=visitor.user if visitor else None, next=next_path)
        if visitor is None:
            return self._who_are_you(request)
        if path == _PASSWORD and changes:
            return await self._change_password(request, visitor)
        if changes and path != "/graphql" and visitor.user.role < Role.launcher:
            # Those of Dagster that we know ask for the permission, too. A later release may have others.
            return JSONResponse({"error": f"this needs the role launcher; yours is {visitor.user.role.name}"}, 403)
        request.scope[VISITOR] = visitor
        return None

    def _who_are_you(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", ""):
            query = request.scope["query_string"].decode("latin-1")
            wanted = request.scope["path"] + (f"?{query}" if query else "")
            return RedirectResponse(f"{self._prefix}{_SIGN_IN}?next={quote(wanted)}", 303)
        how = _HOW.format(path=self._prefix + _SIGN_IN)
        # Not Basic: a browser would ask for a password by itself, and send it to us from pages of others.
        return JSONResponse({"error": f"who are you? {how}"}, 401, {"WWW-Authenticate": 'Bearer realm="dedp"'})

    async def _visitor(self, scope: Scope) -> Visitor | None:
        """Who has sent a request; `None` if nobody that we know. Raises TooManyAttempts."""
        headers = Headers(scope=scope)
        authorization = headers.get("authorization")
        if authorization is None:
            token = HTTPConnection(scope).cookies.get(self._session_cookie(scope, headers))
            user = await self._with_cursor(sessions.user_of, token) if token else None
        else:
            shown = http_rules.credentials(authorization)
            if isinstance(shown, Basic):
                user = await self._by_password(scope, shown.name, shown.password, None)
            else:
                user = await self._with_cursor(sessions.user_of_api_token, shown.token) if shown else None
        if user is None or not _may_come_from(user, scope):
            return None
        return Visitor(user, _address(scope))

    async def _by_password(self, scope: Scope, name: str, password: str, browser: str | None) -> User | None:
        """The user with a password, or `None`. What is wrong is in the log. Raises TooManyAttempts."""
        address = _address(scope)

        def compare() -> User | None:
            with self._database.cursor() as cursor:
                self._forget(cursor)
                known = sessions.known_browser(cursor, name, browser) if browser and "\0" not in name else None
                buckets = throttling.buckets(name, address, known)
                user, outcome = None, "wrong password"
                try:
                    user = self._attempts.user_of(cursor, name, password, buckets)
                    if user and not _may_come_from(user, scope):
                        user, outcome = None, "from this machine only"
                except TooManyAttempts:
                    outcome = "too many wrong passwords"
                    raise
                finally:
                    if user is None:
                        self._record_failure(cursor, name, address, outcome)
                return user

        return await _in_executor(self._comparing, compare)

    def _record_failure(self, cursor: Cursor, name: str, address: str, outcome: str) -> None:
        # Some enter their password as the name.
        told = name if users.find(cursor, name) else _UNKNOWN
        left_out = self._failures.take((told, outcome), time.monotonic())
        if left_out is not None:
            about = {"left_out": left_out} if left_out else {}
            audit.record(cursor, told, None, address, "sign in", about, outcome)

    def _forget(self, cursor: Cursor) -> None:
        """Delete what is over. Only attempts to sign in make more of it."""
        if time.monotonic() - self._forgotten_at > _FORGET_SECONDS:
            self._forgotten_at = time.monotonic()
            sessions.forget(cursor)

    async def _sign_in(self, request: Request) -> Response:
        form = await _form(request)
        if form is None:
            return PlainTextResponse("This is not what the page sends.", 400)
        name, password = form.get("username", ""), form.get("password", "")
        next_path = http_rules.own_path(form.get("next", ""), self._home)
        browser = request.cookies.get(self._browser_cookie(request.scope, request.headers))
        try:
            user = await self._by_password(request.scope, name, password, browser)
        except TooManyAttempts as error:
            page = self._page(429, "Too many wrong passwords. Try again in a moment.", next=next_path)
            return _too_many(error, page)
        if user is None:
            return self._page(401, "This name and this password do not fit together.", next=next_path)
        return await self._new_session(request, user, next_path, browser)

    async def _new_session(self, request: Request, user: User, next_path: str, browser: str | None) -> Response:
        """Start a session with a new token. The one that the browser has had ends."""
        session_cookie = self._session_cookie(request.scope, request.headers)
        before = request.cookies.get(session_cookie)
        address = _address(request.scope)

        def start() -> tuple[str, str]:
            with self._database.cursor() as cursor:
                if before:
                    sessions.end(cursor, before)
                audit.record(cursor, user.name, user.role.name, address, "sign in", {}, "done")
                known = browser and sessions.known_browser(cursor, user.name, browser)
                token = browser if browser and known else sessions.remember_browser(cursor, user.name)
                return sessions.start(cursor, user.name, address), token

        session, known_browser = await to_thread.run_sync(start)
        response = RedirectResponse(next_path, 303)
        secure = http_rules.is_tls(request.scope["scheme"])
        longest = int(sessions.LONGEST.total_seconds())
        response.set_cookie(session_cookie, session, longest, path="/", secure=secure, httponly=True, samesite="lax")
        response.set_cookie(
            self._browser_cookie(request.scope, request.headers),
            known_browser,
            int(sessions.KNOWN_BROWSER.total_seconds()),
            path=self._prefix + _SIGN_IN,
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return response

    async def _sign_out(self, request: Request) -> Response:
        name = self._session_cookie(request.scope, request.headers)
        token = request.cookies.get(name)
        if token:
            await self._with_cursor(_end_session, token, _address(request.scope))
        response = RedirectResponse(f"{self._prefix}{_SIGN_IN}", 303)
        secure = http_rules.is_tls(request.scope["scheme"])
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
        return response

    async def _change_password(self, request: Request, visitor: Visitor) -> Response:
        form = await _form(request)
        if form is None:
            return PlainTextResponse("This is not what the page sends.", 400)
        name = visitor.user.name
        browser = request.cookies.get(self._browser_cookie(request.scope, request.headers))
        try:
            if await self._by_password(request.scope, name, form.get("current", ""), browser) is None:
                return self._page(401, "The current password is another one.", user=visitor.user)
            await _in_executor(self._comparing, partial(self._set_password, visitor, form.get("new", "")))
        except TooManyAttempts as error:
            return _too_many(error, self._page(429, "Too many wrong passwords.", user=visitor.user))
        except UserError as error:
            return self._page(400, f"{error}.", user=visitor.user)
        return self._page(200, "The password is changed. Sign in with the new one.", is_good=True)

    def _set_password(self, visitor: Visitor, password: str) -> None:
        with self._database.cursor() as cursor:
            users.set_password(cursor, visitor.user.name, password)
            user = visitor.user
            audit.record(cursor, user.name, user.role.name, visitor.address, "change own password", {}, "done")

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            is_ours = not http_rules.is_from_another_site(Headers(scope=scope))
            visitor = await self._visitor(scope) if is_ours else None
        except (TooManyAttempts, psycopg2.Error, SQLAlchemyError):
            visitor = None
        if visitor is None:
            await receive()
            await send({"type": "websocket.close", "code": 4401})
            return
        scope[VISITOR] = visitor
        await self._app(scope, receive, self._while_signed_in(scope, visitor, send))

    def _while_signed_in(self, scope: Scope, visitor: Visitor, send: Send) -> Send:
        """Send to a connection as long as its session lasts, and its user has the same role."""
        checked_at, is_over = time.monotonic(), False

        async def send_or_end(message: Message) -> None:
            nonlocal checked_at, is_over
            if is_over:
                return
            if message["type"] == "websocket.send" and time.monotonic() - checked_at > _RECHECK_SECONDS:
                checked_at = time.monotonic()
                try:
                    is_over = await self._visitor(scope) != visitor
                except (TooManyAttempts, psycopg2.Error, SQLAlchemyError):
                    is_over = True
                if is_over:
                    message = {"type": "websocket.close", "code": 4401}
            await send(message)

        return send_or_end

    def _page(self, status: int = 200, message: str = "", is_good: bool = False, **shown: Any) -> Response:
        user: User | None = shown.get("user")
        content = template("dedp_assets.sign_in", "sign_in.html").render(
            user=user,
            may_do=_MAY_DO[user.role] if user else "",
            next=shown.get("next", self._home),
            message=message,
            is_good=is_good,
            prefix=self._prefix,
            shortest=passwords.SHORTEST,
        )
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(content, status, headers)

    async def _with_cursor(self, do: Callable[..., T], *arguments: Any) -> T:
        def done() -> T:
            with self._database.cursor() as cursor:
                return do(cursor, *arguments)

        return await to_thread.run_sync(done)

    def _session_cookie(self, scope: Scope, headers: Headers) -> str:
        # A browser takes a cookie with this beginning only over TLS, and from no other host of the domain.
        beginning = "__Host-" if http_rules.is_tls(scope["scheme"]) else ""
        return f"{beginning}dedp_session{http_rules.cookie_suffix(scope['scheme'], headers)}"

    def _browser_cookie(self, scope: Scope, headers: Headers) -> str:
        beginning = "__Secure-" if http_rules.is_tls(scope["scheme"]) else ""
        return f"{beginning}dedp_browser{http_rules.cookie_suffix(scope['scheme'], headers)}"


def _end_session(cursor: Cursor, token: str, address: str) -> None:
    user = sessions.user_of(cursor, token)
    sessions.end(cursor, token)
    if user:
        audit.record(cursor, user.name, user.role.name, address, "sign out", {}, "done")


def _may_come_from(user: User, scope: Scope) -> bool:
    server = scope.get("server") or ("", None)
    is_here = http_rules.is_on_this_machine(
        _address(scope), server[0], Headers(scope=scope), scope.get("http_version", "")
    )
    return is_here or not user.is_local


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return http_rules.address_of(client[0]) if client else http_rules.UNKNOWN


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a form, or `None` if it is not one, or too long."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_FORM:
            return None
    return {name: values[0] for name, values in parse_qs(body.decode("latin-1"), errors="replace").items()}


async def _in_executor(executor: ThreadPoolExecutor, do: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, do)


def _too_many(error: TooManyAttempts, response: Response) -> Response:
    response.headers["Retry-After"] = str(int(error.seconds) + 1)
    return response


def _at_most(size: int, receive: Receive) -> Receive:
    """Receive a request whose body is not longer than that, in bytes. Dagster answers 413 to a longer one."""
    left = size

    async def receive_at_most() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, f"the body of a request may have {size:,} bytes")
        return message

    return receive_at_most


def _for_one_user(send: Send) -> Send:
    """Let no page of another site show ours in a frame, and no proxy show to one user what another one may see."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Frame-Options", "SAMEORIGIN")
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Cache-Control", "private")
        await send(message)

    return send_with_headers
