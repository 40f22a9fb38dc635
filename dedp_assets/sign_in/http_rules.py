"""What can be told from a request by itself, before anybody is known."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

_FORWARDED = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")
UNKNOWN = "unknown"


class Basic(NamedTuple):
    """A name and a password, as of `curl -u`."""

    name: str
    password: str


class Bearer(NamedTuple):
    """An API token."""

    token: str


def credentials(authorization: str) -> Basic | Bearer | None:
    """What the header Authorization has; `None` if it is of another kind, or damaged."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return Bearer(value.strip())
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return Basic(name, password) if colon else None


def own_path(asked: str, otherwise: str = "/") -> str:
    """Where to go after the sign-in: the path that was asked for, or another one if it may lead to another server.

    A browser reads `\\` as `/`, leaves out tabs and line feeds, and takes `//host` for another server.
    """
    if not asked.startswith("/") or asked.startswith("//") or re.search(r"[\\\x00-\x20\x7f]", asked):
        return otherwise
    return asked


def is_from_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site has made a browser send this, with the cookies of our user.

    Browsers say where a request comes from: with Sec-Fetch-Site, and where that is not sent, without TLS, with Origin.
    A script sends neither, and nobody makes it send the cookies of somebody else.
    """
    site = headers.get("sec-fetch-site")
    if site:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "?").lower()


def is_on_this_machine(client: str, server: str, headers: Mapping[str, str], http_version: str) -> bool:
    """Whether a request was sent to this machine by its name, from the machine itself, and not handed on by a proxy.

    The name counts because a page of another site may have its name lead to 127.0.0.1. A proxy that names nobody is
    known by what it speaks: nginx, with no other setting than where to, asks by HTTP/1.0, and no browser does. What a
    browser has sent to such a proxy has the proxy's own name as its origin.

    Args:
        client: The address of who has sent it.
        server: The address on which it has arrived.
        headers: Its headers, with names in small letters.
        http_version: Such as `1.1`.
    """
    return (
        is_loopback(client)
        and is_loopback(server)
        and _is_loopback_host(f"//{headers.get('host', '')}")
        and _is_loopback_host(headers.get("origin", "http://localhost"))
        and http_version != "1.0"
        and not any(name in _FORWARDED or name.startswith("x-forwarded-") for name in headers)
    )


def _is_loopback_host(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # brackets that are not closed
        return False
    return host == "localhost" or is_loopback(host)


def address_of(client: str) -> str:
    """The address of a client, as the log and the limits have it; `unknown` if it is none.

    A trusted proxy may hand on anything that its client has written. Where a server takes IPv4 and IPv6, IPv4 comes as
    a part of IPv6.
    """
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return UNKNOWN
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_loopback(address: str) -> bool:
    """Whether an address is one that only processes of the same machine can reach."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def cookie_suffix(scheme: str, headers: Mapping[str, str]) -> str:
    """What tells our cookies from those of another server on this host: browsers do not look at the port."""
    port = headers.get("host", "").rpartition(":")[2]
    return "" if is_tls(scheme) or not port.isdecimal() else f"_{port}"


def is_tls(scheme: str) -> bool:
    """Whether a request or a web socket came over TLS, to us or to the proxy before us."""
    return scheme in ("https", "wss")
