"""Write ssh's configuration for one box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from onebox.errors import OneboxError
from onebox.providers.values import Box

PLAIN = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:@+-]*")
# A name as above, a flag, or either with a value after "=".
_PROXY_WORD = re.compile(r"(?:--)?[A-Za-z0-9_:][A-Za-z0-9_.:@+=-]*")
# The variable with the path of the file for the messages of a proxy.
PROXY_MESSAGES = "ONEBOX_PROXY_MESSAGES"
# ssh waits this many seconds for a connection and the server's first line. A tool of a
# cloud takes some seconds itself before it connects.
CONNECT_SECONDS, PROXY_SECONDS = 10, 25


def ssh_config(box: Box, directory: Path, ssh_key_file: Path, socket: Path) -> str:
    """
    Return the text of ssh's configuration file for *box*.

    Args:
        directory: The folder of the known_hosts file.

        ssh_key_file: The private key that the box accepts.

        socket: The path of the control socket.

    Raises:
        OneboxError: A name or path cannot be written into the configuration.
    """
    options = [
        *_connection(box, directory / "known_hosts", ssh_key_file),
        ("ControlMaster", "auto"),
        ("ControlPath", _quoted(socket)),
        ("ControlPersist", "60"),
        ("LogLevel", "ERROR"),
    ]
    proxy = _proxy_command(box)
    if proxy:
        if box.proxy is not None:
            # ssh closes the stderr of its proxy while ControlPersist is set.
            file = f"${PROXY_MESSAGES}"
            keep = f'[ -z "{file}" ] || exec 2>>"{file}"'
            proxy = f"sh -c '{keep}; exec {proxy}'"
        options.append(("ProxyCommand", proxy))
    return _host(box.id, options)


def host_entry(alias: str, box: Box, known_hosts: Path, ssh_key_file: Path) -> str:
    """
    Return the text that makes `ssh ALIAS` of the user's own ssh reach *box*.

    ssh uses the first value that it reads for an option. This text is read before the
    user's own configuration, so it also has the options with which a `Host *` of the
    user could lead ssh to another place.

    Raises:
        OneboxError: A name or path cannot be written into the configuration.
    """
    options = [
        *_connection(box, known_hosts, ssh_key_file),
        ("ProxyCommand", _proxy_command(box) or "none"),
        ("PubkeyAuthentication", "yes"),
        ("PreferredAuthentications", "publickey"),
        ("CanonicalizeHostname", "no"),
        ("ForwardX11", "no"),
        ("RemoteCommand", "none"),
        # onebox ends its own shared connection when it stalls, so the two are apart.
        ("ControlMaster", "no"),
        ("ControlPath", "none"),
    ]
    return _host(alias, options)


def _host(alias: str, options: Sequence[tuple[str, object]]) -> str:
    lines = "".join(f"  {name} {value}\n" for name, value in options)
    return f"Host {alias}\n{lines}"


def _proxy_command(box: Box) -> str:
    """
    Return the command that ssh connects through, "" if it connects directly.

    ssh gives the command to the user's shell, so each word must mean the same to every
    shell; ssh would also expand "%".
    """
    if box.proxy is not None:
        for word in box.proxy.words:
            if not _PROXY_WORD.fullmatch(word):
                raise OneboxError(f"ssh cannot connect by {word!r}", next="inv status")
        return " ".join(box.proxy.words)
    # The jump host is the user's own, so their ssh configuration applies to it.
    return f"ssh -W [%h]:%p -- {box.jump}" if box.jump else ""


def _connection(
    box: Box, known_hosts: Path, ssh_key_file: Path
) -> list[tuple[str, object]]:
    """Return the options that lead to a box, and to no other machine."""
    for word in (box.id, box.host, box.user, *([box.jump] if box.jump else [])):
        if not PLAIN.fullmatch(word):
            raise OneboxError(f"ssh cannot connect to {word!r}", next="inv status")
    return [
        ("HostName", box.host),
        ("Port", box.port),
        ("User", box.user),
        ("HostKeyAlias", box.id),
        ("IdentityFile", _quoted(ssh_key_file)),
        ("IdentitiesOnly", "yes"),
        ("IdentityAgent", "none"),
        ("UserKnownHostsFile", _quoted(known_hosts)),
        ("GlobalKnownHostsFile", "/dev/null"),
        ("StrictHostKeyChecking", "yes"),
        ("UpdateHostKeys", "no"),
        ("BatchMode", "yes"),
        ("ForwardAgent", "no"),
        ("ConnectTimeout", PROXY_SECONDS if box.proxy else CONNECT_SECONDS),
        # With these two options, ssh detects a dead connection after about a minute.
        ("ServerAliveInterval", "15"),
        ("ServerAliveCountMax", "4"),
        # On a CPU with AES, this cipher is two to three times as fast as the default
        # one. A key exchange with curve25519 alone, without the default's post-quantum
        # part, shortens connecting by 40 %.
        ("Ciphers", "^aes128-gcm@openssh.com"),
        ("KexAlgorithms", "^curve25519-sha256"),
    ]


def _quoted(path: Path) -> str:
    # ssh expands %x and ${NAME} in a path. The first can be escaped with another "%".
    # The second cannot be escaped, so it is refused.
    text = str(path)
    if "\n" in text or '"' in text or "${" in text:
        raise OneboxError(f"ssh does not support a path like {text!r}")
    return '"{}"'.format(text.replace("%", "%%"))
