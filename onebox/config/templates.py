"""The onebox.toml that `inv init` writes."""

from __future__ import annotations

_LOCAL = "# This machine rehearses the cloud: aws, gcp or digitalocean."
_CLOUD = "# Or local, to rehearse all of it on this machine for nothing."

_TEXT = """\
# onebox: one job on one big machine. onebox.toml.example shows every setting.
{note}
provider = "{provider}"
vm = "medium"                  # small, medium, large, xlarge; `inv plan` has prices

[image]
setup = ""                     # a script that installs what the job needs

[run]
command = "python job.py"

[fetch]
outputs = ["results/"]         # what the job leaves and you want here

[limits]
max_hours = 8                  # then the box powers itself off, whatever happens
"""


def template(provider: str = "local") -> str:
    """Return a short onebox.toml to begin with."""
    note = _LOCAL if provider == "local" else _CLOUD
    return _TEXT.format(provider=provider, note=note)
