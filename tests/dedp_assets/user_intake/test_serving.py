"""`dedp serve-users`: an API to try the intake with."""

import signal
import subprocess
import sys

from dedp_assets.user_intake.fetching import fetch_users
from dedp_assets.user_intake.parsing import parse_users
from dedp_assets.user_intake.serving import made_users, serving


def test_made_users_are_taken_in_and_the_bad_ones_are_set_aside() -> None:
    with serving(made_users(250, bad=2)) as server:
        fetched = fetch_users(server.url)
    assert [len(page) for page in fetched.pages] == [100, 100, 50]
    parsed = parse_users(user for page in fetched.pages for user in page)
    assert (len(parsed.users), [aside.reason for aside in parsed.set_aside]) == (248, ["missing field"] * 2)


def test_the_command_serves_until_ctrl_c_and_says_where() -> None:
    program = "from dedp_assets.cli import main; main()"
    command = [sys.executable, "-c", program, "serve-users", "--port", "0", "--users", "3", "--bad", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        try:
            assert said.startswith("DEDP_USERS_API=http://127.0.0.1:")
            assert len(fetch_users(said.split()[0].removeprefix("DEDP_USERS_API=")).pages[0]) == 3
        finally:
            process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stdout.read()
    assert process.returncode == 130
