"""
Have a box end itself at its deadline, where the user has given it the means.

A droplet that is powered off is billed on, so only a call of the API ends it.
For that the box needs a token; it comes over the verified connection once the
box is there, into memory that only root can read, and never into user data. A
reboot forgets it. The box's user may not become root from then on, since a job
that could would be able to read it.

Powering such a box off before its deadline would only keep it from ending itself
then: it is left on, unless no job was ever started on it, and is removed.
"""

from __future__ import annotations

import json

from onebox.providers.kernel.user_data import ROOT, USER

WHERE = "/run/onebox-end"

# Runs as root on the box, instead of a plain power-off; see agent/watch.py.
END = """\
import json, os, subprocess, time, urllib.request

def ask(url, method, head):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers=head)
    return opener.open(request, timeout=8).read(1 << 16)

told = json.load(open("%(where)s/told"))
box = json.load(open("%(root)s/box.json"))
jobs = os.path.isdir("%(root)s/jobs") and os.listdir("%(root)s/jobs")
if jobs and time.time() < box["deadline"] - 1:
    # Off is as dear as on, and whoever is off cannot end itself at its deadline.
    raise SystemExit(0)
head = {"Authorization": "Bearer " + told["token"]}
end = time.monotonic() + 25
while time.monotonic() < end:
    try:
        number = ask("http://169.254.169.254/metadata/v1/id", "GET", {})
        ask(told["api"] + "droplets/%%d" %% int(number), "DELETE", head)
        time.sleep(5)
    except (OSError, ValueError):
        time.sleep(1)
subprocess.call(["systemctl", "poweroff"])
"""

_DELIVER = """\
import json, os
told = json.loads({told})
os.umask(0o077)
os.makedirs({where}, exist_ok=True)
for name in ("end.py", "told"):
    with open({where} + "/" + name, "w") as file:
        file.write(told[name])
for name in ("/etc/sudoers.d/90-{user}",):
    if os.path.exists(name):
        os.remove(name)
path = {root} + "/box.json"
box = json.load(open(path))
box["poweroff"] = ["python3", "-I", "-S", {where} + "/end.py"]
box["poweroff_force"] = []
with open(path + ".new", "w") as file:
    json.dump(box, file)
    os.fchmod(file.fileno(), 0o644)
os.replace(path + ".new", path)
"""


def post_boot_script(token: str, api: str) -> bytes:
    """
    Return the Python program that gives a box the means to end itself.

    It is to be run once, as root, over the verified connection. It holds the
    token: so it is told on stdin, and goes nowhere else.
    """
    end = END % {"where": WHERE, "root": ROOT}
    told = {"end.py": end, "told": json.dumps({"token": token, "api": api})}
    return _DELIVER.format(
        told=repr(json.dumps(told)), where=repr(WHERE), root=repr(ROOT), user=USER
    ).encode("ascii")
