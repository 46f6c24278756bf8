"""
Give a restarted box its new deadline.

The user data of a server never changes, and its metadata server shows nothing else that
a client could change. So a box that is started again boots with the deadline of its
creation. If that deadline has passed, the box stays on for some minutes, in which a
client can connect. The client sends the new deadline over the verified connection, in
the post-boot script. The box keeps the new deadline on its disk for later boots.
"""

from __future__ import annotations

import math

from onebox.providers.kernel.user_data import LATE, ROOT
from onebox.providers.values import Box, Request

# A box that boots after its deadline waits this many seconds for a client.
GRACE = 900
TIMER = "/run/systemd/system/onebox-deadline.timer"

_READ = """\
deadline={deadline}
[ ! -s {kept} ] || deadline=$(cat {kept})
[ $(date +%s) -lt $deadline ] || deadline=$(($(date +%s) + {grace}))
"""

_DELIVER = """\
import json, os, re, subprocess, time

def write(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    os.replace(path + ".new", path)

deadline = {deadline}
box = json.load(open({root!r} + "/box.json"))
if box["deadline"] != deadline:
    write({kept!r}, str(deadline))
    timer = open({timer!r}).read()
    left = max(deadline - int(time.time()), 0) + {late}
    timer = re.sub("OnActiveSec=.*", "OnActiveSec=%d" % left, timer)
    timer = re.sub("OnCalendar=.*", "OnCalendar=@%d" % (deadline + {late}), timer)
    write({timer!r}, timer)
    subprocess.check_call(["systemctl", "daemon-reload"])
    subprocess.check_call(["systemctl", "restart", "onebox-deadline.timer"])
    box["deadline"] = deadline
    write({root!r} + "/box.json", json.dumps(box))
"""


def at_boot(request: Request) -> str:
    """Return shell code for `user_data.user_data` that sets the variable `deadline`."""
    deadline = math.ceil(request.boot_config.deadline)
    return _READ.format(deadline=deadline, kept=_kept(request.box), grace=GRACE)


def post_boot_script(box: Box) -> bytes:
    """Return the Python program that sets a box's deadline; root runs it on the box."""
    return _DELIVER.format(
        deadline=math.ceil(box.deadline),
        root=ROOT,
        kept=_kept(box.id),
        timer=TIMER,
        late=math.ceil(LATE),
    ).encode("ascii")


def _kept(box: str) -> str:
    """
    Return the path of the file that holds a box's deadline.

    The file name holds the box's id. So a box ignores the file of another box that its
    image contains.
    """
    return f"{ROOT}/deadline-{box}"
