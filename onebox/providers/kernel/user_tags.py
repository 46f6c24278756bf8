"""
Check the user's tags, which are in [tags] of onebox.toml, by the rules of a cloud.

The tags are in each call that creates an object, because a company can deny calls that
create objects without certain tags. They never decide whose an object is: onebox reads
only its own tags, and the keys of these are refused in [tags].
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class TagRules:
    """
    What a cloud accepts as the key and the value of a tag.

    Attributes:
        cloud: The name of the cloud in messages.

        key, value: Regular expressions of the whole key and the whole value.

        expected: A phrase that completes "… accepts".
    """

    cloud: str
    key: str
    value: str
    expected: str

    def problem(self, key: str, value: str) -> str:
        """Return why the cloud would refuse a tag, "" if it accepts the tag."""
        for what, text, pattern in (
            ("key", key, self.key),
            ("value", value, self.value),
        ):
            if re.fullmatch(pattern, text) is None:
                return f"{self.cloud} refuses this {what}: it accepts {self.expected}"
        return ""
