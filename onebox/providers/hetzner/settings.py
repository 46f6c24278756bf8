"""Define the settings in the table [hetzner] of onebox.toml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onebox.providers.kernel import cloud_settings
from onebox.providers.kernel.billed_off import BilledOffSettings
from onebox.providers.kernel.user_tags import TagRules
from onebox.settings.checks import Between
from onebox.settings.fields import setting
from onebox.settings.kinds import NUMBER


@dataclass(frozen=True)
class HetznerSettings(BilledOffSettings):
    """Where and how boxes are created on Hetzner, which calls a region a location."""

    # Hetzner Cloud API reference, "Labels". A key may have a domain as its prefix;
    # hetzner.cloud/ is reserved.
    tag_rules: ClassVar[TagRules] = TagRules(
        "Hetzner Cloud",
        r"(?!hetzner\.cloud/)(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?"
        r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?",
        "letters, digits, - _ and ., at most 63 in a key and in a value, which begin "
        "and end with a letter or digit; a key may begin with a domain and /",
    )
    region: str = cloud_settings.region("fsn1", '"hel1"', "The location.")
    regions: tuple[str, ...] = cloud_settings.regions('["nbg1"]')
    # `private` is not a setting of this table, because Hetzner's firewalls do not
    # protect private addresses.
    private: ClassVar[bool] = False  # type: ignore[misc] # no key here, unlike in the base class
    usd_per_euro: float = setting(
        NUMBER, 1.25, "1.2", "The dollars of a euro, for all limits.", Between(0.5, 2.0)
    )
