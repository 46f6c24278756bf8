"""What the user wants of DigitalOcean, and how long its answers may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onebox.providers.kernel.ssh_access import is_world


@dataclass(frozen=True)
class Timeouts:
    """
    For how long what is waited for, in seconds.

    *settle* is how long a list may lag behind; *creates* how often a create call is
    sent that the API answers with an error of its own; *look* lies between two looks at
    something that takes its time.
    """

    connect: float = 10.0
    read: float = 30.0
    whole: float = 120.0
    tries: int = 5
    pause: float = 0.5
    limited: float = 180.0
    settle: float = 60.0
    creates: int = 4
    look: float = 3.0
    shutdown: float = 60.0
    action: float = 600.0
    image: float = 3600.0
    gone: float = 240.0
    prices: float = 300.0


@dataclass(frozen=True)
class Settings:
    """
    The table [digitalocean] of onebox.toml.

    *cidr* is who may reach ssh, "" for this machine alone. *destroy_token* is the
    name of the variable that holds a token with which a box ends itself.
    """

    regions: tuple[str, ...]
    cidr: str
    private: bool
    jump: str
    vpc: str
    accept_no_watchdog: bool
    destroy_token: str

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Settings:
        """Return the settings in the table [digitalocean]."""
        first = _text(settings, "region") or "nyc3"
        more = settings.get("regions") or ()
        assert isinstance(more, (list, tuple))
        return cls(
            regions=tuple(dict.fromkeys([first, *(str(one) for one in more)])),
            cidr=_text(settings, "ssh_cidr"),
            private=bool(settings.get("private")),
            jump=_text(settings, "jump"),
            vpc=_text(settings, "vpc"),
            accept_no_watchdog=bool(settings.get("accept_no_watchdog")),
            destroy_token=_text(settings, "destroy_token"),
        )

    @property
    def open_to_all(self) -> bool:
        """Whether everybody may reach ssh."""
        return bool(self.cidr) and is_world(self.cidr)


def _text(settings: Mapping[str, object], key: str) -> str:
    value = settings.get(key)
    return "" if value is None else str(value)
