"""
The user data of a box holds a script, which enforces the deadline from the first boot.

At every boot, before sshd starts, the script writes the box's id and deadline, and
starts two mechanisms that power the box off: the watchdog (`onebox.agent.watchdog`),
and a systemd timer in case the watchdog or its Python is broken. Their units are below
/run, so an image that is saved from a box does not contain them. An image does contain
other traces of the box that it was saved from; the script removes them.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import shlex
from typing import Literal

from onebox.providers.values import Request

Notice = Literal["ec2", "gce", ""]

USER = "onebox"
HOME = f"/home/{USER}"
WORK = "work"
ROOT = "/var/lib/onebox"
AGENT = f"{ROOT}/agent.pyz"
HOST_KEY = "/etc/ssh/onebox_host_key"
# The systemd timer fires this many seconds after the deadline. It is the longest time
# that the watchdog needs to let a job save its state and to flush the disks.
LATE = 100.0
# No deadline is more than this many seconds away (see `limits.max_hours`). If the box's
# clock is far behind, more time than this seems to be left. The script then uses this
# limit, so that the box does not stay on for years.
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
    Return the user data for cloud-init; equal requests lead to equal bytes.

    The limits are 16,384 bytes on EC2 (the compressed form is far smaller), 32 KiB on
    Hetzner, 64 KiB on DigitalOcean and 256 KiB on Google Cloud.

    Args:
        notice: The metadata service that announces a preemption, "" if there is none.

        host_key: Whether the request's key becomes the only host key of sshd. If False,
            the box generates its own key, and cloud-init publishes it where the cloud
            supports that (Google's guest attributes).

        packed: Whether the result is compressed. Only EC2 accepts compressed bytes.

        late: The systemd timer fires this many seconds after the deadline.

        until: Shell code that sets the variable `deadline` (whole seconds) at every
            boot, for clouds where user data cannot change. "" means that the deadline
            of the request is written into the script.
    """
    script = until + _arming(request, notice, host_key, late, until != "")
    script += _user(request)
    script += _host_key(request) if host_key else ""
    script += _sshd(HOST_KEY if host_key else "/etc/ssh/ssh_host_ed25519_key")
    config = {
        # bootcmd is cloud-init's first module, and cloud-init runs it at every boot.
        "bootcmd": [_without_comments(script)],
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
    }
    # cloud-init expects YAML. JSON is valid YAML, and json.dumps escapes the script.
    text = f"#cloud-config\n{json.dumps(config, indent=0)}\n".encode("ascii")
    return gzip.compress(text, 9, mtime=0) if packed else text


def _without_comments(script: str) -> str:
    """Return a script without its comment lines, to stay below the size limits."""
    lines = script.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("# "))


def startup_script(request: Request, *, notice: Notice, late: float = LATE) -> str:
    """
    Return the startup script for a Google image without cloud-init.

    Such an image generates its host keys itself, and publishes them as guest
    attributes.
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
    reads_deadline: bool = False,
) -> str:
    config = request.boot_config
    deadline = "deadline" if reads_deadline else str(math.ceil(config.deadline))
    box = {
        "box": request.box,
        "work": f"{HOME}/{WORK}",
        "home": HOME,
        **({} if reads_deadline else {"deadline": config.deadline}),
        "setup_grace": config.setup_grace,
        "idle_grace": config.idle_grace,
        # The command is not halt: for EC2 a halted instance is still running, so EC2
        # goes on billing it.
        "poweroff": ["systemctl", "poweroff"],
        "poweroff_force": ["systemctl", "poweroff", "-ff"],
        "sudo": ["sudo", "-n"],
        "notice": notice,
        "host_key": HOST_KEY if host_key else "",
    }
    # The seed is empty if an existing disk starts again, because that disk holds the
    # agent already.
    seed = gzip.compress(config.seed, 9, mtime=0) if config.seed else b""
    return _ARM.format(
        deadline=deadline,
        longest=LONGEST,
        late=math.ceil(late),
        root=ROOT,
        home=HOME,
        work=WORK,
        box=shlex.quote(request.box),
        # The script itself prints the opening brace of the JSON, and the time of the
        # boot after it. So the brace is cut off here.
        config=shlex.quote(json.dumps(box)[1:]),
        armed='\'{"armed": %s, "deadline": %s, %s\\n\' $now $deadline'
        if reads_deadline
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


# The script starts the timer before all other units, and the timer needs only systemd.
# So the box powers itself off even if a later step of the script fails.
# `armed` in box.json is the time of this boot. The watchdog lets the box run for the
# seconds from `armed` to the deadline, so a reboot does not give the box more time.
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
Description=onebox: power off, if the watchdog has not
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
# Units are stopped in the reverse order of their start. So clients receive the exit
# record of the job before a shutdown ends their sessions.
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
# Remove the traces of the box that the image was saved from; its work directory only
# if a record shows that it belongs to another box.
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
printf {armed} {config} >{root}/box.new
mv -f {root}/box.new {root}/box.json
systemctl restart --no-block onebox-watch.service onebox-off.service
"""

# The user's password entry is *, which no password matches. The entry ! would also lock
# the account.
_USER = """\
id -u {user} >/dev/null 2>&1 || useradd -m -d {home} -U -s /bin/bash -p '*' {user}
mkdir -p {home}/.ssh {home}/{work}
echo {key} >{home}/.ssh/authorized_keys
chmod 700 {home}/.ssh
chmod 600 {home}/.ssh/authorized_keys
chown {user}: {home} {home}/.ssh {home}/.ssh/authorized_keys {home}/{work}
# The folder and its programs belong to root, so no job can replace what root runs.
cd {root}
mkdir -p files jobs
touch lease hostkey.lock watch.log
chown {user}: files jobs lease hostkey.lock watch.log
echo '{user} ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-{user}
chmod 440 /etc/sudoers.d/90-{user}
"""

# The script writes the host key only once for each box, because the client replaces the
# key later. Neither cloud-init nor the image uses a host key file of this name.
_HOST_KEY = """\
if [ ! -s {file} ] || [ "$(cat {file}.box 2>/dev/null)" != {box} ]; then
rm -f {file}*
(umask 077; echo {key} >{file}.draft)
mv -f {file}.draft {file}
echo {box} >{file}.box
fi
"""

# For most options sshd uses the first value that it reads, so the script makes sshd
# read onebox's file first. But sshd uses every HostKey line that it reads, so the
# script turns the other HostKey lines into comments.
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
