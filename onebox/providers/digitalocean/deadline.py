"""
Choose what enforces a box's deadline, and let the box read it at every boot.

DigitalOcean bills a droplet that is powered off, so powering off at the deadline is
not enough. Either the box deletes itself (see `self_destroy`), or the user accepts
that only a teardown or `inv sweep` ends the billing.

The user data of a droplet cannot be changed, so the deadline is in a tag of the
droplet. The box reads the tag from the metadata service at every boot. A start with a
new deadline changes the tag before it powers the droplet on. If the metadata service
does not answer, the deadline from the creation of the box applies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from onebox.errors import ConfigError
from onebox.providers.digitalocean.errors import TOKEN
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.values import Request

_ASK = """\
deadline=$(python3 -I -S - {deadline} <<'end'
import math, re, sys, time, urllib.request
created = int(sys.argv[1])
found = []
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
url = "http://169.254.169.254/metadata/v1/tags/"
for _ in range(20 if time.time() > created - 600 else 3):
    try:
        tags = opener.open(url, timeout=3).read(1 << 16).decode("ascii", "replace")
    except (OSError, ValueError):
        time.sleep(1)
        continue
    for text in re.findall(r"(?im)^onebox-expires:([0-9]+(?:_2e[0-9]+)?)\\s*$", tags):
        found.append(math.ceil(float(text.lower().replace("_2e", "."))))
    break
print(max(found or [created]))
end
)
[ -n "$deadline" ] || deadline={deadline}
"""


def deadline_at_boot(request: Request) -> str:
    """
    Return shell code that sets the variable `deadline`, for `user_data.user_data`.
    """
    return _ASK.format(deadline=math.ceil(request.boot_config.deadline))


def destroy_token(
    settings: DigitalOceanSettings, environ: Mapping[str, str], api_token: str
) -> str:
    """
    Return the token by which boxes delete themselves, "" if the user chose none.

    Args:
        api_token: The token that onebox itself uses, which must be another one.

    Raises:
        ConfigError: Nothing would end the billing of a box, or the token is missing or
            the same as *api_token*.
    """
    name = settings.destroy_token
    if not name:
        if settings.accept_no_watchdog:
            return ""
        raise ConfigError(
            "DigitalOcean bills a droplet that is powered off in full, so a box costs "
            "money after its deadline, until it is torn down",
            next="[digitalocean] destroy_token = the name of a variable with a token "
            "for boxes to delete themselves, or accept_no_watchdog = true and "
            "inv sweep --print-cron",
        )
    token = environ.get(name, "").strip()
    if not token:
        raise ConfigError(
            f"[digitalocean] destroy_token names {name}, which is not set",
            next=f"set {name} to a token with only the scope droplet:delete",
        )
    if token == api_token:
        raise ConfigError(
            f"{name} holds the same token as {TOKEN}, which would put all of its "
            "rights on the box",
            next="create another one, with only the scope droplet:delete",
        )
    return token


def note(settings: DigitalOceanSettings) -> str:
    """Return the note for the user about what happens at a box's deadline."""
    if settings.destroy_token:
        return "at its deadline the box deletes itself, with everything on its disk"
    return (
        "at its deadline the box only powers itself off, and is still billed until "
        "inv teardown or inv sweep deletes it (inv sweep --print-cron)"
    )
