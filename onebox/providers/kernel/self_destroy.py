"""
Write the program by which a box deletes itself at its deadline.

Some clouds bill a machine that is powered off, so only an API call that deletes it ends
the costs. The box needs a token for this call. If the settings name one, onebox sends
it over the verified connection, and never in user data. The box keeps the token in
memory that only root can read, until a reboot erases it. The program also takes the
right to become root from the box's user, because a job with root could read the token.

A box with this token is not powered off before its deadline, unless no job was ever
started on it: a powered-off box could not delete itself at its deadline.
"""

from __future__ import annotations

import json

from onebox.providers.kernel.user_data import ROOT, USER

WHERE = "/run/onebox-end"

# The box runs this program as root, instead of a plain power-off; see
# agent/watchdog.py.
END = """\
import json, os, subprocess, time, urllib.request

def ask(url, method, head):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers=head)
    return opener.open(request, timeout=8).read(1 << 16)

access = json.load(open("%(where)s/access"))
box = json.load(open("%(root)s/box.json"))
jobs = os.path.isdir("%(root)s/jobs") and os.listdir("%(root)s/jobs")
if jobs and time.time() < box["deadline"] - 1:
    # Off costs as much as on, and a box that is off cannot delete itself later.
    raise SystemExit(0)
head = {"Authorization": "Bearer " + access["token"]}
end = time.monotonic() + 25
while time.monotonic() < end:
    try:
        number = ask("http://169.254.169.254/%(number)s", "GET", {})
        ask(access["api"] + "%%d" %% int(number), "DELETE", head)
        time.sleep(5)
    except (OSError, ValueError):
        time.sleep(1)
subprocess.call(["systemctl", "poweroff"])
"""

_DELIVER = """\
import json, os
files = json.loads({files})
os.umask(0o077)
os.makedirs({where}, exist_ok=True)
for name in ("end.py", "access"):
    with open({where} + "/" + name, "w") as file:
        file.write(files[name])
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


def post_boot_script(token: str, machines: str, number: str) -> bytes:
    """
    Return the Python program that enables a box to delete itself.

    onebox runs the program once, as root, over the verified connection. The program
    holds the token, so it is sent only on stdin.

    Args:
        machines: The API address of all machines, with a slash at the end. The number
            of a machine follows it.

        number: The path in the metadata server at which a machine reads its own number.
    """
    end = END % {"where": WHERE, "root": ROOT, "number": number}
    files = {"end.py": end, "access": json.dumps({"token": token, "api": machines})}
    return _DELIVER.format(
        files=repr(json.dumps(files)), where=repr(WHERE), root=repr(ROOT), user=USER
    ).encode("ascii")
