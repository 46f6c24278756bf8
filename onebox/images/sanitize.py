"""
Make a box fit to be copied: what is its own, and not the environment's, goes.

The scripts go to the box on stdin of a shell, not as a job: the last of them takes
away the folder that jobs live in. What concerns the system runs through sudo, and
only where the box has a system to itself; it looks for the box's own name there
first, so that it can never be another machine's.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import PurePosixPath

from onebox import subprocess_env
from onebox.agent.file_names import printable
from onebox.errors import BoxFailed, ConnectionLost
from onebox.providers.base import Box
from onebox.remote.connection import SSHConnection

# How long such a script may take. Cloud-init can be busy for minutes.
SECONDS = 900.0


def prepare(ssh: SSHConnection, *, system: bool) -> None:
    """
    Have the system keep its hands off its packages, and wait for its first boot.

    Args:
        system: The box has a system to itself; so in all that follows.
    """
    if system:
        _run(ssh, _as_root(ssh.box, _PREPARE))


def clean(ssh: SSHConnection, *, system: bool, living: bool) -> None:
    """
    Remove keys, histories, caches, and whatever makes this machine this machine.

    Args:
        living: The box goes on afterwards: what it needs to come up again stays
            (host key, agent, jobs, code and data), and a box made from the image
            removes it before its ssh server starts.
    """
    box, script = ssh.box, _HOME
    if system:
        part = _SYSTEM
        if not living:
            script += f"rm -rf {shlex.quote(box.work)}\n"
            part += _MACHINE.format(root=shlex.quote(_root(box)))
        script += _as_root(box, part)
    _run(ssh, script)


def said(*, system: bool) -> str:
    """Say what cleaning takes away."""
    if system:
        return "keys, histories, caches, logs, host keys, machine-id"
    return "histories, caches"


def secrets(ssh: SSHConnection, *, system: bool) -> list[str]:
    """Return the files that an image would hold and that look like secrets."""
    own, work = "" if system else "yes", shlex.quote(ssh.box.work)
    script = _LOOK.format(own=own, work=work)
    if system:
        script = _as_root(ssh.box, script)
    return sorted(set(_run(ssh, script).splitlines()))


def _root(box: Box) -> str:
    return str(PurePosixPath(box.agent).parent)


def _as_root(box: Box, script: str) -> str:
    return _ROOT.format(
        box=shlex.quote(box.id),
        record=shlex.quote(f"{_root(box)}/box.json"),
        script=shlex.quote(script),
    )


def _run(ssh: SSHConnection, script: str) -> str:
    """Run a script that may be run twice; return what it has printed."""
    try:
        done = subprocess.run(
            [*ssh.argv(), "exec sh -s"],
            input=script.encode(),
            capture_output=True,
            check=False,
            timeout=SECONDS,
            env=subprocess_env.environment(),
            # Ctrl-C is ours to handle.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise BoxFailed(
            f"{ssh.box.id} was not ready for an image within {SECONDS:.0f} s",
            next="the same command again",
        ) from error
    if done.returncode == 255:
        raise ConnectionLost("the connection to the box broke")
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise BoxFailed(
            f"{ssh.box.id} could not be made ready for an image (exit "
            f"{done.returncode})"
            + "".join(f"\n    {printable(line[:400])}" for line in said[-5:])
        )
    return done.stdout.decode("utf-8", "replace")


_ROOT = """\
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

# Timers that install packages take apt's lock, and restart services at will.
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

# A local box's own TMPDIR is below its folder; /tmp is everybody's.
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

# The agent's folder comes last: with it goes the watch, and from then on only
# systemd's own timer, which is below /run, ends the box at its deadline.
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

_LOOK = """\
homes=$HOME
[ -n "{own}" ] || homes="/root /home/*"
for home in $homes; do
cd "$home" 2>/dev/null || continue
for it in .aws/credentials .azure/accessTokens.json .azure/msal_token_cache.json \\
.config/gcloud/credentials.db .config/gcloud/application_default_credentials.json \\
.config/doctl/config.yaml .config/gh/hosts.yml .config/rclone/rclone.conf \\
.docker/config.json .git-credentials .kube/config .netrc .npmrc .pgpass .pypirc \\
.s3cfg .boto .my.cnf .kaggle/kaggle.json .cache/huggingface/token \\
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
