"""
What a cloud's box is told in the call that creates it: to arm itself, and how.

At every boot, before ssh answers, the box writes down what it is and until when,
and starts what will power it off: the watch (see `onebox.agent.watchdog`), and
beside it a timer of systemd's own, should the watch or its Python be broken.
Their units live below /run, so that an image saved from a box holds none of
them. Whatever else an image holds of the box that it was saved from is removed.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import shlex
from typing import Literal

from onebox.providers.base import Request

Notice = Literal["ec2", "gce", ""]

USER = "onebox"
HOME = f"/home/{USER}"
WORK = "work"
ROOT = "/var/lib/onebox"
AGENT = f"{ROOT}/agent.pyz"
HOST_KEY = "/etc/ssh/onebox_host_key"
# By how much systemd's own timer comes after the deadline: what the watch needs
# at the most to let a job save itself and have the disks written.
LATE = 100.0
# A clock that is years behind must not keep a box on for years. No deadline is
# further away than this (see `limits.max_hours`).
LONGEST = 14 * 86400


def user_data(
    request: Request,
    *,
    notice: Notice,
    host_key: bool = True,
    packed: bool = False,
    late: float = LATE,
    until: str = "",
) -> bytes:
    """
    Return what cloud-init is given as user data; for one request always the same.

    EC2 takes 16,384 bytes, which it keeps far below when packed; DigitalOcean
    takes 64 KiB, and Google 256 KiB.

    Args:
        notice: Whose metadata service tells that the cloud takes the box back.

        host_key: Let sshd answer with the request's key, and with no other.
            Without, the box makes its own, which cloud-init tells the cloud if
            it has a place for that (Google's guest attributes).

        packed: Compress it, where the cloud takes bytes that are no text (EC2).

        late: By how many seconds systemd's own timer comes after the deadline.

        until: Shell that sets the variable `deadline` (whole seconds) at every
            boot, for clouds where user data never changes.
    """
    script = until + _arming(request, notice, host_key, late, until != "")
    script += _user(request)
    script += _host_key(request) if host_key else ""
    script += _sshd(HOST_KEY if host_key else "/etc/ssh/ssh_host_ed25519_key")
    told = {
        # Of all modules the first, and the one that runs at every boot.
        "bootcmd": [_without_comments(script)],
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
    }
    # JSON is YAML in which nothing needs to be escaped twice.
    text = f"#cloud-config\n{json.dumps(told, indent=0)}\n".encode("ascii")
    return gzip.compress(text, 9, mtime=0) if packed else text


def _without_comments(script: str) -> str:
    """Return a script without its comment lines: every byte of user data counts."""
    lines = script.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("# "))


def startup_script(request: Request, *, notice: Notice, late: float = LATE) -> str:
    """
    Return what a Google image without cloud-init runs at every boot.

    Its host keys it makes itself, and publishes as guest attributes.
    """
    return (
        "#!/bin/sh\n"
        + _arming(request, notice, False, late)
        + _user(request)
        + _sshd("")
    )


def _arming(
    request: Request,
    notice: Notice,
    host_key: bool,
    late: float,
    told_until: bool = False,
) -> str:
    arming = request.arming
    deadline = "deadline" if told_until else str(math.ceil(arming.deadline))
    told = {
        "box": request.box,
        "work": f"{HOME}/{WORK}",
        "home": HOME,
        **({} if told_until else {"deadline": arming.deadline}),
        "setup_grace": arming.setup_grace,
        "idle_grace": arming.idle_grace,
        # Never halt: a halted EC2 instance runs on, and is billed.
        "poweroff": ["systemctl", "poweroff"],
        "poweroff_force": ["systemctl", "poweroff", "-ff"],
        "sudo": ["sudo", "-n"],
        "notice": notice,
        "host_key": HOST_KEY if host_key else "",
    }
    # A disk that starts again, in another machine, holds its agent already.
    seed = gzip.compress(arming.seed, 9, mtime=0) if arming.seed else b""
    return _ARM.format(
        deadline=deadline,
        longest=LONGEST,
        late=math.ceil(late),
        root=ROOT,
        home=HOME,
        work=WORK,
        box=shlex.quote(request.box),
        # Without the brace: what only the box knows is put in front.
        told=shlex.quote(json.dumps(told)[1:]),
        armed='\'{"armed": %s, "deadline": %s, %s\\n\' $now $deadline'
        if told_until
        else "'{\"armed\": %s, %s\\n' $now",
        seed=base64.b64encode(seed).decode("ascii"),
    )


def _user(request: Request) -> str:
    key = " ".join(request.user_key.split()[:2])
    return _USER.format(
        user=USER, home=HOME, work=WORK, root=ROOT, key=shlex.quote(key)
    )


def _host_key(request: Request) -> str:
    return _HOST_KEY.format(
        file=HOST_KEY,
        box=shlex.quote(request.box),
        key=shlex.quote(request.host_key.private.strip()),
    )


def _sshd(host_key: str) -> str:
    line = f"HostKey {host_key}\n" if host_key else ""
    return _SSHD.format(line=line)


# The timer comes first, and needs nothing but systemd: whatever goes wrong after
# it, the box ends. `armed` is now, so that a reboot does not prolong anything.
_ARM = """\
# onebox: arm this box, at every boot.
umask 022
units=/run/systemd/system
mkdir -p $units /run/systemd/logind.conf.d
now=$(date +%s)
[ $now -ge $(({deadline} - {longest})) ] || now=$(({deadline} - {longest}))
left=$(({deadline} - now))
[ $left -ge 0 ] || left=0
cat >$units/onebox-deadline.service <<'end'
[Unit]
Description=onebox: power off, should the watch not have done so
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=-systemctl --no-block poweroff
ExecStart=-sleep 120
ExecStart=-systemctl poweroff -ff
ExecStart=-sh -c 'echo o >/proc/sysrq-trigger'
end
cat >$units/onebox-deadline.timer <<end
[Unit]
Description=onebox: the deadline
DefaultDependencies=no
[Timer]
OnActiveSec=$((left + {late}))
OnCalendar=@$(({deadline} + {late}))
AccuracySec=1
end
cat >$units/onebox-watch.service <<'end'
[Unit]
Description=onebox: power off at the deadline, or when idle
DefaultDependencies=no
StartLimitIntervalSec=0
[Service]
ExecStart=python3 -I -S {root}/watch.pyz watch
Restart=always
RestartSec=2
OOMScoreAdjust=-900
end
# Clients are told how the job ended before a shutdown ends their sessions: units
# are stopped in the reverse order of their start.
cat >$units/onebox-off.service <<'end'
[Unit]
Description=onebox: end the job first
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
After=network.target ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=-sh -c 'systemctl -q is-active onebox-watch || exit 0; cd {root}; touch off; \
timeout 75 sh -c "while [ -e off ]; do sleep 0.1; done"'
end
mkdir -p $units/session-.scope.d
cat >$units/session-.scope.d/onebox.conf <<'end'
[Unit]
Before=onebox-off.service
end
# A job outlives its connection, and so does its shared memory.
cat >/run/systemd/logind.conf.d/onebox.conf <<'end'
[Login]
KillUserProcesses=no
RemoveIPC=no
end
systemctl daemon-reload
systemctl restart --no-block onebox-deadline.timer
systemctl stop --no-block apt-daily.timer apt-daily-upgrade.timer
systemctl kill -s HUP systemd-logind 2>/dev/null
# What an image holds of the box that it was saved from; its work only if that is
# certainly another box's.
if ! grep -qsF {box} {root}/box.json; then
grep -qsF '"box"' {root}/box.json && rm -rf {home}/{work}
rm -rf {root}
fi
mkdir -p {root}
rm -f {root}/notice {root}/off
seed={seed}
[ -z "$seed" ] || for it in watch agent; do
echo $seed | base64 -d | gzip -d >{root}/$it.new && mv -f {root}/$it.new {root}/$it.pyz
done
printf {armed} {told} >{root}/box.new
mv -f {root}/box.new {root}/box.json
systemctl restart --no-block onebox-watch.service onebox-off.service
"""

# A password of * is none that could be typed, but no locked account either.
_USER = """\
id -u {user} >/dev/null 2>&1 || useradd -m -d {home} -U -s /bin/bash -p '*' {user}
mkdir -p {home}/.ssh {home}/{work}
echo {key} >{home}/.ssh/authorized_keys
chmod 700 {home}/.ssh
chmod 600 {home}/.ssh/authorized_keys
chown {user}: {home} {home}/.ssh {home}/.ssh/authorized_keys {home}/{work}
# The folder and the programs in it stay root's: no job may replace what root runs.
cd {root}
mkdir -p files jobs
touch lease hostkey.lock watch.log
chown {user}: files jobs lease hostkey.lock watch.log
echo '{user} ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-{user}
chmod 440 /etc/sudoers.d/90-{user}
"""

# Once for each box: it may have made itself another one since. Its name is one
# that neither cloud-init nor the image touches.
_HOST_KEY = """\
if [ ! -s {file} ] || [ "$(cat {file}.box 2>/dev/null)" != {box} ]; then
rm -f {file}*
(umask 077; echo {key} >{file}.draft)
mv -f {file}.draft {file}
echo {box} >{file}.box
fi
"""

# The first value that sshd reads is the one that counts; of host keys all do.
_SSHD = """\
conf=/etc/ssh/sshd_config
every="Include $conf.d/*.conf"
mkdir -p $conf.d
sed -i 's/^[[:space:]]*HostKey[[:space:]=]/#&/I' $conf $conf.d/*.conf 2>/dev/null
grep -qiF "$every" $conf || sed -i "1i $every" $conf
cat >$conf.d/00-onebox.conf <<'end'
{line}PasswordAuthentication no
KbdInteractiveAuthentication no
end
sync
for it in ssh sshd; do
systemctl is-active -q $it && systemctl reload --no-block $it
done
true
"""
