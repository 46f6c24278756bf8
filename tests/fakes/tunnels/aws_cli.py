"""
The AWS CLI and the Session Manager plugin, as far as they lead ssh to an instance.

Messages and exit codes are those of the AWS CLI 2.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fakes.tunnels import wire

USAGE = """
usage: aws [options] <command> <subcommand> [<subcommand> ...] [parameters]
To see help text, you can run:

  aws help
  aws <command> help
  aws <command> <subcommand> help
"""
GLOBAL = {"region", "profile", "output", "color", "endpoint-url"}
COMMANDS = {
    ("ec2-instance-connect", "open-tunnel"): {
        *("instance-id", "instance-connect-endpoint-id", "private-ip-address"),
        *("instance-connect-endpoint-dns-name", "remote-port", "local-port"),
        *("max-tunnel-duration", "max-websocket-connections"),
    },
    ("ssm", "start-session"): {"target", "document-name", "reason", "parameters"},
}


def aws(path: str, version: str, words: Sequence[str]) -> None:
    """Run the AWS CLI."""
    version = version or "2.27.50"
    if list(words) == ["--version"]:
        print(f"aws-cli/{version} Python/3.13.4 Linux/6.8 exe/x86_64.debian.12")
        return
    command = tuple(words[:2])
    if command[:1] == ("ec2-instance-connect",) and version.startswith("1."):
        wire.fail(USAGE + "\naws: error: argument operation: Invalid choice", 252)
    if command not in COMMANDS:
        wire.fail(USAGE + "\naws: error: argument command: Invalid choice", 252)
    given = options(words[2:], COMMANDS[command] | GLOBAL)
    profile = given.get("profile") or os.environ.get("AWS_PROFILE", "")
    region = (
        given.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
    )
    if not region:
        wire.fail(
            "\nYou must specify a region. You can also configure your region by "
            'running "aws configure".',
            253,
        )
    key = access_key(profile, explicit="profile" in given)
    query = {"region": region, "key": key, "profile": given.get("profile", "")}
    if command[0] == "ssm":
        start_session(path, query, given)
    else:
        open_tunnel(path, query, given)


def options(words: Sequence[str], known: set[str]) -> dict[str, str]:
    """Return the options by name; refuse those that are not known."""
    given: dict[str, str] = {}
    unknown = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = word[2:]
        if not word.startswith("--") or name not in known:
            unknown.append(word)
        elif not rest or rest[0].startswith("--"):
            wire.fail(
                USAGE + f"\naws: error: argument {word}: expected one argument", 252
            )
        else:
            given[name] = rest.pop(0)
    if unknown:
        wire.fail(USAGE + f"\nUnknown options: {', '.join(unknown)}", 252)
    return given


def access_key(profile: str, *, explicit: bool) -> str:
    """Return the access key of the credentials that the real tool would find."""
    if not explicit and os.environ.get("AWS_ACCESS_KEY_ID"):
        return os.environ["AWS_ACCESS_KEY_ID"]
    found = configparser.ConfigParser()
    found.read(Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")))
    name = profile or "default"
    if profile and not found.has_section(name):
        wire.fail(f"\nThe config profile ({profile}) could not be found", 255)
    if not found.has_section(name):
        wire.fail(
            "\nUnable to locate credentials. You can configure credentials by running "
            '"aws configure".',
            253,
        )
    return found[name]["aws_access_key_id"]


def open_tunnel(path: str, query: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Serve one connection on stdin and stdout, through an endpoint."""
    if "instance-id" not in given:
        wire.fail("\nSpecify an instance id or private ip.", 252)
    port = given.get("remote-port", "22")
    if not port.isdigit():
        wire.fail(f"\nCannot parse value {port!r} as an integer", 252)
    if os.isatty(0):
        wire.fail("\nThis command does not support interactive mode.", 252)
    wire.serve(
        path,
        {**query, "tool": "eice", "instance": given["instance-id"], "port": int(port)},
    )


def start_session(
    path: str, query: Mapping[str, str], given: Mapping[str, str]
) -> None:
    """Start a session, and hand it over to the plugin."""
    if "target" not in given:
        wire.fail(
            USAGE + "\naws: error: the following arguments are required: --target", 252
        )
    parameters = dict(
        part.split("=", 1) for part in given.get("parameters", "").split(",") if part
    )
    session = {
        **query,
        "tool": "ssm",
        "instance": given["target"],
        "document": given.get("document-name", "SSM-SessionManagerRunShell"),
        "port": int(parameters.get("portNumber", "0")),
    }
    if shutil.which("session-manager-plugin") is None:
        wire.fail(
            "\nSessionManagerPlugin is not found. Please refer to SessionManager "
            "Documentation here: http://docs.aws.amazon.com/console/systems-manager/"
            "session-manager-plugin-not-found",
            255,
        )
    argv = ["session-manager-plugin", json.dumps(session), query["region"]]
    argv += ["StartSession", query["profile"], json.dumps(parameters), "https://ssm"]
    os.execvp(argv[0], argv)


def plugin(path: str, version: str, words: Sequence[str]) -> None:
    """Run the plugin: serve a session on stdin and stdout."""
    if list(words) == ["--version"]:
        print(version or "1.2.707.0")
        return
    if len(words) != 6 or words[2] != "StartSession":
        wire.fail("The Session Manager plugin was installed successfully.", 1)
    wire.serve(path, json.loads(words[0]))
