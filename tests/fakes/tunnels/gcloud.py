"""gcloud, as far as it leads ssh to an instance; with gcloud's messages and codes."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.tunnels import wire

COMMAND = "(gcloud.compute.start-iap-tunnel)"
VALUES = {"project", "zone", "verbosity", "account", "configuration", "iap-tunnel-url"}
SWITCHES = {"listen-on-stdin", "quiet", "iap-tunnel-disable-connection-check"}
NO_ACCOUNT = f"""ERROR: {COMMAND} You do not currently have an active account selected.
Please run:

  $ gcloud auth login

to obtain new credentials.

If you have already logged in with a different account, run:

  $ gcloud config set account ACCOUNT

to select an already authenticated account to use."""
NUMPY = """WARNING:

To increase the performance of the tunnel, consider installing NumPy. For instructions,
please see https://cloud.google.com/iap/docs/using-tcp-forwarding
"""


def gcloud(path: str, version: str, words: Sequence[str]) -> None:
    """Run gcloud."""
    words = list(words)
    if words == ["--version"]:
        print(f"Google Cloud SDK {version or '512.0.0'}\nbq 2.1.13\ncore 2025.02.28")
        return
    account = active_account()
    if words[:2] == ["auth", "list"]:
        if not account:
            sys.stderr.write("\nNo credentialed accounts.\n")
        if words[2:] == ["--filter=status:ACTIVE", "--format=value(account)"]:
            print(account)
        return
    if words[:2] != ["compute", "start-iap-tunnel"]:
        wire.fail(f"ERROR: (gcloud) Invalid choice: '{' '.join(words[:1])}'.", 2)
    names, given = parse(words[2:])
    if given.get("verbosity", "warning") in ("warning", "info", "debug"):
        sys.stderr.write(NUMPY)
        sys.stderr.flush()
    if len(names) != 2 or not names[1].isdigit():
        wire.fail(
            f"ERROR: {COMMAND} argument INSTANCE_NAME INSTANCE_PORT: Must be "
            "specified.",
            2,
        )
    if not account:
        wire.fail(NO_ACCOUNT, 1)
    if "project" not in given:
        wire.fail(
            f"ERROR: {COMMAND} The required property [project] is not currently set.", 1
        )
    if "zone" not in given:
        wire.fail(
            f"ERROR: {COMMAND} Underspecified resource [{names[0]}]. Specify the "
            "[--zone] flag.",
            1,
        )
    if "listen-on-stdin" not in given:
        sys.stderr.write("Picking local unused port [41113].\n")
        wire.fail("Testing if tunnel connection works.", 0)
    wire.serve(
        path,
        {
            "tool": "iap",
            "account": account,
            "instance": names[0],
            "port": int(names[1]),
            "project": given["project"],
            "zone": given["zone"],
        },
    )


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the positional arguments, and the flags by name."""
    names: list[str] = []
    given: dict[str, str] = {}
    unknown = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name in SWITCHES and not equals:
            given[name] = "true"
        elif name not in VALUES:
            unknown.append(word)
        elif equals or rest:
            given[name] = value if equals else rest.pop(0)
        else:
            wire.fail(f"ERROR: {COMMAND} argument {word}: expected one argument", 2)
    if unknown:
        wire.fail(f"ERROR: {COMMAND} unrecognized arguments: {' '.join(unknown)}", 2)
    return names, given


def active_account() -> str:
    """Return the account of gcloud's own login, "" if there is none."""
    found = configparser.ConfigParser()
    folder = Path(os.environ.get("CLOUDSDK_CONFIG", "/nonexistent"))
    found.read(folder / "configurations" / "config_default")
    return found.get("core", "account", fallback="")
