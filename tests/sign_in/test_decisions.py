"""What the sign-in decides of plain values."""

import base64

import pytest

from dedp_assets.sign_in import audit, http_rules, passwords, throttling
from dedp_assets.sign_in.errors import UserError
from dedp_assets.sign_in.http_rules import Basic, Bearer
from dedp_assets.sign_in.roles import Role, may, role_for_mutation
from dedp_assets.sign_in.run_config import ENVIRONMENT, RESOURCES, reserved_for_admins


@pytest.mark.parametrize("path", ["/", "/runs/1?tab=a#b", "/assets/dedp/devices_raw", "/.//evil.example"])
def test_after_the_sign_in_a_browser_goes_to_the_path_that_was_asked_for(path: str) -> None:
    assert http_rules.own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "runs",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "https://evil.example",
        ),
        *("/\t/evil.example", "/\n/evil.example", "/ /evil.example", "javascript:alert(1)", "https:evil.example"),
        "/runs\r\nSet-Cookie: a=b",
    ],
)
def test_after_the_sign_in_no_browser_goes_to_another_server(path: str) -> None:
    assert http_rules.own_path(path) == "/"
    assert http_rules.own_path(path, "/dedp/") == "/dedp/"


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({}, False),  # a script
        ({"sec-fetch-site": "same-origin", "origin": "https://a.example", "host": "10.0.0.1"}, False),  # behind a proxy
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),  # another server of the same domain, or another port
        ({"origin": "http://a.example:3000", "host": "a.example:3000"}, False),
        ({"origin": "http://a.example:3001", "host": "a.example:3000"}, True),
        ({"origin": "http://evil.example", "host": "a.example:3000"}, True),
        ({"origin": "null", "host": "a.example:3000"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://[", "host": "a.example"}, True),
    ],
)
def test_what_a_page_of_another_site_makes_a_browser_send_is_known(headers: dict[str, str], is_refused: bool) -> None:
    assert http_rules.is_from_another_site(headers) == is_refused


@pytest.mark.parametrize(
    ("client", "server", "headers", "is_local"),
    [
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1:3000"}, True),
        ("127.0.0.1", "127.0.0.1", {"host": "localhost:3000"}, True),
        ("::1", "::1", {"host": "[::1]:3000"}, True),
        ("10.0.0.9", "127.0.0.1", {"host": "127.0.0.1:3000"}, False),
        ("127.0.0.1", "10.0.0.1", {"host": "127.0.0.1:3000"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "evil.example:3000"}, False),  # a name that leads to 127.0.0.1
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1:3000", "x-forwarded-for": "10.0.0.9"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1:3000", "via": "1.1 proxy"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1:3000", "x-forwarded-server": "proxy"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1:3000", "origin": "http://localhost:3000"}, True),
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1:3000", "origin": "https://dedp.example"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "["}, False),
        ("127.0.0.1", "127.0.0.1", {}, False),
        ("unknown", "", {"host": "localhost"}, False),
    ],
)
def test_the_password_that_everybody_knows_is_taken_on_the_same_machine_alone(
    client: str, server: str, headers: dict[str, str], is_local: bool
) -> None:
    assert http_rules.is_on_this_machine(client, server, headers, "1.1") == is_local
    assert not http_rules.is_on_this_machine(client, server, headers, "1.0")  # what nginx speaks, and no browser


def test_scripts_send_a_name_and_a_password_or_an_api_token() -> None:
    def basic(text: bytes) -> str:
        return f"Basic {base64.b64encode(text).decode()}"

    assert http_rules.credentials(basic("ada:a:b é".encode())) == Basic("ada", "a:b é")
    assert http_rules.credentials("bearer dedp_x") == Bearer("dedp_x")
    for damaged in [basic(b"ada"), basic(b"\xff:\xff"), "Basic $", "Basic", "Digest a", ""]:
        assert http_rules.credentials(damaged) is None


def test_a_known_browser_has_a_bucket_of_its_own_and_others_share_those_of_the_user_and_of_the_address() -> None:
    names = [{bucket.name for bucket in throttling.buckets(user, "10.0.0.1", None)} for user in ("ada", "bob")]
    assert len(names[0] & names[1]) == 1
    assert not names[0] & {bucket.name for bucket in throttling.buckets("ada", "10.0.0.1", b"browser")}
    assert throttling.network("2001:db8:1:2::1") == throttling.network("2001:db8:1:2:3::9")
    assert throttling.network("2001:db8:1:2::1") != throttling.network("2001:db8:1:3::1")
    assert throttling.network("unknown") == "unknown"


def test_a_password_is_right_by_its_hash_which_has_a_salt_of_its_own() -> None:
    first, second = passwords.hashed("correct horse"), passwords.hashed("correct horse")
    assert first != second
    assert "horse" not in first
    assert passwords.is_right("correct horse", first)
    assert not passwords.is_right("correct horse ", first)
    assert not passwords.is_right("correct horse", "no hash")
    assert not passwords.is_right("correct horse", None)
    assert not passwords.is_right("a" * 10_000, passwords.hashed("a" * passwords.LONGEST))
    assert not passwords.is_outdated(first)
    assert passwords.is_outdated(first.replace("t=2", "t=1"))


@pytest.mark.parametrize("password", ["", "short", "x" * 300, "Ada.Lovelace"])
def test_a_new_password_is_neither_short_nor_endless_nor_the_name(password: str) -> None:
    with pytest.raises(UserError, match=r"the password of ada\.lovelace"):
        passwords.checked(password, "ada.lovelace")


def test_what_nobody_has_named_is_for_admins() -> None:
    assert role_for_mutation("whatDagsterBringsNext") == Role.admin
    assert not may(Role.launcher, "what_dagster_brings_next")
    assert may(Role.admin, "what_dagster_brings_next")
    assert may(Role.launcher, "launch_pipeline_execution")
    assert not may(Role.viewer, "launch_pipeline_execution")


def test_the_log_has_what_a_mutation_is_about_and_no_run_config() -> None:
    arguments = {
        "executionParams": {
            "selector": {"jobName": "load", "assetSelection": [{"path": ["dedp", "raw"]}, {"path": ["counts"]}]},
            "runConfigData": {"ops": {"load": {"config": {"path": "secret", "partitionKey": "secret"}}}},
            "executionMetadata": {
                "tags": [{"key": "dagster/partition", "value": "2024-01-01"}, {"key": "token", "value": "secret"}]
            },
        }
    }
    assert audit.described(arguments) == {
        "jobName": "load",
        "asset": ["dedp/raw", "counts"],
        "dagster/partition": "2024-01-01",
    }
    many = audit.described({"partitionNames": [str(number) for number in range(1000)]})["partitionNames"]
    assert many[-2:] == ["49", "..."]
    assert len(audit.described({"partitionKey": "x" * 10_000})["partitionKey"]) == 300


@pytest.mark.parametrize(
    ("client", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),  # IPv4 at a server that takes both: else all of IPv4 were one network
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%\x1b[31m", "fe80::1"),
        ("\x1b[31m", "unknown"),
        ("x" * 5000, "unknown"),
        ("", "unknown"),
    ],
)
def test_the_address_of_a_client_is_an_address_whatever_a_proxy_hands_on(client: str, address: str) -> None:
    assert http_rules.address_of(client) == address


@pytest.mark.parametrize("name", ["127.0.0.1", "[::1]", "dedp.example"])
def test_a_cookie_has_the_same_name_for_requests_and_web_sockets_and_another_one_at_another_port(name: str) -> None:
    for schemes in (("http", "ws"), ("https", "wss")):
        assert len({http_rules.cookie_suffix(scheme, {"host": f"{name}:8443"}) for scheme in schemes}) == 1
    suffixes = {http_rules.cookie_suffix("http", {"host": f"{name}{port}"}) for port in ("", ":3000", ":3001")}
    assert suffixes == {"", "_3000", "_3001"}


def test_of_many_like_entries_the_log_gets_some_and_how_many_were_left_out() -> None:
    sample = throttling.Sample(size=3, seconds=10)
    assert [sample.take("a", 0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert sample.take("b", 0.0) == 0
    assert sample.take("a", 9.0) is None
    assert [sample.take("a", 10.0) for _ in range(2)] == [3, None]
    assert [sample.take("a", 1e6) for _ in range(4)] == [1, 0, 0, None]


WITH_ENVIRONMENT = {"ops": {"load": {"config": {"files": [{"name": {"env": "DEDP_POSTGRES_DSN"}}]}}}}
SHARED = "a: &a {env: X}\nb: [*a, *a]\n"
BOMB = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 30)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("config", "reserved"),
    [
        ({}, None),
        (None, None),
        ("", None),
        (WITH_ENVIRONMENT, ENVIRONMENT),
        (str(WITH_ENVIRONMENT), ENVIRONMENT),  # YAML
        ("ops: {load: {config: {name: {env: X}}}}", ENVIRONMENT),
        ("ops:\n  load:\n    config:\n      name:\n        'env': X\n", ENVIRONMENT),
        (SHARED, ENVIRONMENT),
        ("ops: {load: {config: {<<: {env: X}}}}", ENVIRONMENT),
        ({"ops": {"load": {"config": {"env": "X", "region": "Y"}}}}, None),  # a field with that name
        ({"ops": {"load": {"config": {"name": "env"}}}}, None),
        ("ops: [", None),  # Dagster refuses it
        (BOMB, None),
        ({"resources": {"io_manager": {"config": {"base_dir": "/landing"}}}}, RESOURCES),
        ("resources: {io_manager: {config: {base_dir: /landing}}}", RESOURCES),
        ({"resources": {}, "ops": {"load": {"config": {"resources": {"a": 1}}}}}, None),
        ([1, {"a": (2, {"env": 3})}], ENVIRONMENT),
    ],
)
def test_what_a_run_config_asks_for_that_is_for_admins_is_known(config: object, reserved: str | None) -> None:
    for arguments in (
        {"executionParams": {"runConfigData": config}},
        {"executionParamsList": [{"runConfigData": {}}, {"runConfigData": config}]},
        {"backfillParams": {"runConfigData": config}},
    ):
        assert reserved_for_admins(arguments) == reserved
