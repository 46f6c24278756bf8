"""
Prepare a box's disk for an image: remove keys, histories, logs and host identity.

The scripts are sent over SSH to the stdin of a shell. They do not run as a job, because
the last script removes the folder in which jobs live. Scripts that change the system
run through sudo, and only on a box that has an operating system of its own. They first
check that the machine has the id of the box, so that they never change another machine.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from onebox.errors import BoxFailed, ConnectionLost
from onebox.providers import PROVIDERS
from onebox.providers.values import Box
from onebox.remote import commands
from onebox.remote.connection import SSHConnection
from onebox.remote.ssh_script import ScriptFailed, run_script

# The time that a script may take. It is long because cloud-init can be busy for minutes
# after a boot.
TIMEOUT_SECONDS = 900.0


def prepare(ssh: SSHConnection, *, system: bool) -> None:
    """
    Stop automatic package updates, and wait until the first boot has ended.

    Do nothing if *system* is false.

    Args:
        system: Whether the box has an operating system of its own. The argument means
            the same in all functions below.
    """
    if system:
        _run(ssh, _as_root(ssh.box, _PREPARE))


def clean(ssh: SSHConnection, *, system: bool, keep_box: bool) -> None:
    """
    Remove from a box what an image must not contain, above all histories and caches.

    If *system* is true, this also removes keys and the machine's identity.

    Args:
        keep_box: Whether the box is used again afterwards. Its host key, agent, jobs,
            code and data then stay. A new box that is created from the image
            removes them before its ssh server starts.
    """
    box, script = ssh.box, _HOME
    if system:
        root_script = _SYSTEM
        if not keep_box:
            script += f"rm -rf {shlex.quote(box.work)}\n"
            root_script += _MACHINE.format(root=shlex.quote(_agent_folder(box)))
        script += _as_root(box, root_script)
    _run(ssh, script)


def describe(*, system: bool) -> str:
    """Return a phrase that lists the things that `clean` removes."""
    if system:
        return "keys, histories, caches, logs, host keys, machine-id"
    return "histories, caches"


def find_secrets(ssh: SSHConnection, *, system: bool) -> list[str]:
    """Return the paths of files that look like secrets and would be in an image."""
    own, work = "" if system else "yes", shlex.quote(ssh.box.work)
    clouds = " ".join(path for row in PROVIDERS.values() for path in row.credentials)
    script = _FIND_SECRETS.format(own=own, work=work, clouds=clouds)
    if system:
        script = _as_root(ssh.box, script)
    return sorted(set(_run(ssh, script).splitlines()))


def _agent_folder(box: Box) -> str:
    return str(PurePosixPath(box.agent).parent)


def _as_root(box: Box, script: str) -> str:
    return _AS_ROOT.format(
        box=shlex.quote(box.id),
        record=shlex.quote(f"{_agent_folder(box)}/box.json"),
        script=shlex.quote(script),
    )


def _run(ssh: SSHConnection, script: str) -> str:
    """
    Run a script on the box and return its output.

    The script must be safe to run twice: it is repeated if the connection breaks.
    """
    try:
        return run_script(
            ssh, commands.shell(ssh.box), script.encode(), seconds=TIMEOUT_SECONDS
        )
    except ScriptFailed as error:
        if error.exit is None:
            raise BoxFailed(
                f"{ssh.box.id} was not ready for an image within "
                f"{TIMEOUT_SECONDS:.0f} s",
                next="run the same command again",
            ) from error
        if error.exit == 255:
            raise ConnectionLost("the connection to the box broke") from error
        raise BoxFailed(
            f"{ssh.box.id} could not be prepared for an image (exit {error.exit})"
            + "".join(f"\n    {line}" for line in error.lines)
        ) from error


_AS_ROOT = """\
if ! grep -qsF {box} {record}; then
echo 'this machine is not the box' >&2
exit 3
fi
if [ "$(id -u)" = 0 ]; then
sh -c {script} || exit
else
sudo -n sh -c {script} || exit
fi
"""

# This script first stops the timers of automatic updates, because the updates take
# apt's lock and restart services.
_PREPARE = """\
for it in apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service; do
systemctl mask --now $it
done >/dev/null 2>&1
if [ -d /etc/apt ]; then
mkdir -p /etc/apt/apt.conf.d
echo 'DPkg::Lock::Timeout "600";' >/etc/apt/apt.conf.d/90onebox
fi
if command -v cloud-init >/dev/null; then
timeout 600 cloud-init status --wait >/dev/null
fi
true
"""

_HISTORIES = (
    ".bash_history .zsh_history .python_history .node_repl_history .psql_history"
    " .sqlite_history .mysql_history .rediscli_history .lesshst .viminfo .wget-hsts"
)

# This script does not empty /tmp, because a local box without a mount namespace shares
# /tmp with the machine. Such a box has a TMPDIR of its own.
_HOME = f"""\
cd || exit
rm -rf {_HISTORIES} .cache/pip .cache/uv
"""

_SYSTEM = f"""\
set -u
if command -v apt-get >/dev/null; then
apt-get clean
rm -rf /var/lib/apt/lists/*
fi
for home in /root /home/*; do
(cd "$home" 2>/dev/null && rm -rf {_HISTORIES} \\
.ssh/authorized_keys .ssh/authorized_keys2 .ssh/known_hosts*)
done
: >/etc/machine-id
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
find /tmp /var/tmp -mindepth 1 -maxdepth 1 -exec rm -rf {{}} +
sync
"""

# The agent's folder is removed last, because it contains the watchdog. After that only
# a systemd timer below /run powers the box off at its deadline.
_MACHINE = """\
rm -rf /var/lib/dhcp/* /var/lib/systemd/random-seed
if command -v journalctl >/dev/null; then
journalctl --rotate
rm -rf /var/log/journal/*
fi >/dev/null 2>&1
find /var/log -type f -exec truncate -s 0 {{}} +
if command -v cloud-init >/dev/null; then
cloud-init clean --logs >/dev/null 2>&1
fi
rm -f /etc/ssh/ssh_host_* /etc/ssh/onebox_host_key*
rm -rf {root}
sync
"""

_FIND_SECRETS = """\
homes=$HOME
[ -n "{own}" ] || homes="/root /home/*"
for home in $homes; do
cd "$home" 2>/dev/null || continue
for it in {clouds} .azure/accessTokens.json .azure/msal_token_cache.json \\
.config/gh/hosts.yml .config/rclone/rclone.conf .docker/config.json .git-credentials \\
.kube/config .netrc .npmrc .pgpass .pypirc .s3cfg .boto .my.cnf \\
.kaggle/kaggle.json .cache/huggingface/token \\
.huggingface/token .terraform.d/credentials.tfrc.json .config/pip/pip.conf \\
.ssh/id_* .env */.env */*/.env */*/*/.env; do
case "{own}$it" in
*.pub) continue ;;
yes.ssh/*|yes{work}/*) continue ;;
esac
[ -s "$it" ] && [ -f "$it" ] || continue
case $it in
.docker/config.json) grep -q '"auth"' "$it" || continue ;;
.npmrc) grep -qi '_authToken\\|_password' "$it" || continue ;;
.config/pip/pip.conf) grep -q '://[^/]*@' "$it" || continue ;;
esac
if [ "$home" = "$HOME" ] && [ -n "{own}" ]; then
echo "~/$it"
else
echo "$home/$it"
fi
done
done
"""
