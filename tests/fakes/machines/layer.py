"""
The plain image of all machines: an overlay layer above this host's Debian.

The layer adds cloud-init from Debian's package, hides homes and host keys, and enables
only the services of a small cloud image. It is built once, and kept in `PLACE`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

PLACE = Path("/var/tmp/onebox-machines")
PACKAGES = ("cloud-init", "openssh-server", "sudo", "dbus", "systemd-sysv")
# The top-level directories of a system; the machine sees no others.
SYSTEM = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "proc",
    "run",
    "sbin",
    "sys",
    "usr",
    "var",
)
HIDDEN_STATE = (
    "var/tmp",
    "var/lib/cloud",
    "var/lib/dbus",
    "var/lib/onebox",
    "var/lib/systemd",
    "var/log",
)
# Units that only touch hardware, or this host's kernel.
MASKED = (
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty.target",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-hwdb-update.service",
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-udev-settle.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
)
WANTED = {
    "multi-user.target.wants": (
        "ssh.service",
        "google-guest-agent.service",
        "google-startup-scripts.service",
    ),
    "timers.target.wants": ("apt-daily.timer", "apt-daily-upgrade.timer"),
    "cloud-init.target.wants": (
        "cloud-init-local.service",
        "cloud-init.service",
        "cloud-config.service",
        "cloud-final.service",
    ),
}
# The real command detects a container. cloud-init would then not look for the files
# that identify the cloud.
DETECT_VIRT = """\
#!/bin/sh
case "$*" in *-c*) exit 1 ;; *-q*) ;; *) echo kvm ;; esac
"""
CLOUD_CFG = """\
network: {config: disabled}
locale: C.UTF-8
# No network card exists for a link-local address.
datasource: {DigitalOcean: {use_ip4LL: false}}
"""
# Each machine has the data source of its own cloud in this file.
DATASOURCE_CFG = "etc/cloud/cloud.cfg.d/90_datasource.cfg"
# Google's Debian has no cloud-init, but Google's guest agent.
WITHOUT_CLOUD_INIT = "etc/cloud/cloud-init.disabled"
GUEST_AGENT = "usr/lib/google_guest_agent.py"
GOOGLE = {
    "google-guest-agent.service": "keys\nRemainAfterExit=yes",
    "google-startup-scripts.service": "startup",
}
GOOGLE_UNIT = """\
[Unit]
ConditionPathExists=/{condition}
{order}
[Service]
Type=oneshot
StandardOutput=journal+console
StandardError=journal+console
ExecStart=/usr/bin/python3 /{agent} {what}
KillMode=process
"""
HOSTS = """\
127.0.0.1 localhost
169.254.169.254 metadata.google.internal metadata
"""
TIMEOUT = 300
# The layer of another version of this file is deleted when unused for so long.
UNUSED = 86400


class CannotBuild(Exception):
    """The image cannot be built on this host; the message has the reason."""


def missing() -> str:
    """Return why this host cannot run machines, "" if it can."""
    if os.getuid() != 0:
        return "machines need root: namespaces, overlays, control groups"
    if "ID=debian" not in Path("/etc/os-release").read_text().splitlines():
        return "a machine uses this host's own system, which is not Debian"
    for tool in ("unshare", "nsenter", "setpriv", "pivot_root", "ip", "apt-get"):
        if shutil.which(tool) is None:
            return f"{tool} is missing"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is missing: apt install systemd-sysv"
    try:
        layer()
    except (CannotBuild, OSError) as error:
        return str(error)
    return ""


def layer() -> Path:
    """Return the layer's directory; build it at the first call."""
    sources = Path(__file__).read_bytes()
    sources += Path(__file__).with_name("guest_agent.py").read_bytes()
    release = Path("/etc/os-release").read_bytes()
    place = PLACE / hashlib.sha256(sources + release).hexdigest()[:12]
    PLACE.mkdir(mode=0o700, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            draft = PLACE / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            for name in ("upper", "work", "root"):
                (draft / name).mkdir(parents=True)
            _install(draft)
            _configure(draft / "upper")
            (draft / "upper").rename(place)
            shutil.rmtree(draft)
        os.utime(place)
        for other in PLACE.glob("[0-9a-f]" * 12):
            if other.stat().st_mtime < time.time() - UNUSED:
                shutil.rmtree(other)
    return place


def _install(draft: Path) -> None:
    """Install the packages above the host's root, in a mount namespace."""
    script = f"""
    set -e
    mount -t overlay overlay root -o lowerdir=/,upperdir=upper,workdir=work
    mount -t proc proc root/proc
    mount --rbind /dev root/dev
    printf '#!/bin/sh\\nexit 101\\n' >root/usr/sbin/policy-rc.d
    chmod 755 root/usr/sbin/policy-rc.d
    run() {{ DEBIAN_FRONTEND=noninteractive chroot root "$@"; }}
    want='{" ".join(PACKAGES)}'
    run apt-get install -y -qq --no-install-recommends $want ||
      {{ run apt-get update -qq
        run apt-get install -y -qq --no-install-recommends $want; }}
    rm root/usr/sbin/policy-rc.d
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=draft,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        error = done.stderr.strip().splitlines()[-1:]
        raise CannotBuild(f"cloud-init cannot be installed: {error}")


def _configure(upper: Path) -> None:
    others = sorted(
        path.name
        for path in Path("/").iterdir()
        if path.is_dir()
        and not path.is_symlink()
        and not path.name.startswith(("lib", "."))
        and path.name not in SYSTEM
    )
    for name in (*others, *HIDDEN_STATE):
        _hide(upper / name, 0o1777 if name.endswith("tmp") else 0o755)
    ssh = _hide(upper / "etc/ssh")
    for name in ("moduli", "ssh_config"):
        shutil.copy2(f"/etc/ssh/{name}", ssh / name)
    shutil.copy2("/usr/share/openssh/sshd_config", ssh / "sshd_config")
    (ssh / "sshd_config.d").mkdir()
    units = _hide(upper / "etc/systemd/system")
    for unit in MASKED:
        (units / unit).symlink_to("/dev/null")
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    (units / "sshd.service").symlink_to("/lib/systemd/system/ssh.service")
    for folder, wanted in WANTED.items():
        (units / folder).mkdir()
        for unit in wanted:
            home = "/etc" if unit in GOOGLE else "/lib"
            (units / folder / unit).symlink_to(f"{home}/systemd/system/{unit}")
    shutil.copy2(Path(__file__).with_name("guest_agent.py"), upper / GUEST_AGENT)
    for unit, what in GOOGLE.items():
        first = unit.startswith("google-guest")
        order = "Before=ssh.service" if first else "After=google-guest-agent.service"
        text = GOOGLE_UNIT.format(
            condition=WITHOUT_CLOUD_INIT, order=order, agent=GUEST_AGENT, what=what
        )
        (units / unit).write_text(text)
    _hide(upper / "etc/sudoers.d")
    (upper / "etc/fstab").write_text("")
    # The marker keeps cloud-init from configuring the network.
    (upper / "var/lib/cloud/data").mkdir()
    (upper / "var/lib/cloud/data/upgraded-network").write_text("")
    (upper / "etc/machine-id").write_text("")
    (upper / "etc/hosts").write_text(HOSTS)
    (upper / "etc/hostname").write_text("")
    (upper / "etc/resolv.conf").unlink(missing_ok=True)
    (upper / "etc/resolv.conf").write_text("")
    (upper / "etc/cloud/cloud.cfg.d/90_clouds.cfg").write_text(CLOUD_CFG)
    detect = upper / "usr/bin/systemd-detect-virt"
    detect.unlink(missing_ok=True)
    detect.write_text(DETECT_VIRT)
    detect.chmod(0o755)
    for mark in (".dockerenv", ".dockerinit"):
        if Path(f"/{mark}").exists():
            os.mknod(upper / mark, 0o600)
            (upper / mark).unlink()
            os.mknod(upper / mark, 0o20000)


def _hide(path: Path, mode: int = 0o755) -> Path:
    """Hide a file or directory of the host behind an empty directory."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    path.chmod(mode)
    os.setxattr(path, "trusted.overlay.opaque", b"y")
    return path
