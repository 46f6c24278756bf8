"""
Write and read the labels of servers, firewalls, addresses, ssh keys and snapshots.

A label has the form of a Kubernetes label: its value has up to 63 letters, digits,
dots, dashes and underscores, and begins and ends with a letter or a digit.
"""

from __future__ import annotations

import string
from collections.abc import Mapping

from onebox.providers.kernel.alphabet import Alphabet

PREFIX = "onebox-"
LONGEST = 63
# An encoded text has only letters and digits, so that any piece of it is a valid label
# value. It has at most ten pieces, so that their labels sort in the order of the
# pieces.
_PLAIN = string.ascii_letters.replace("Z", "") + string.digits
ALPHABET = Alphabet(_PLAIN, "Z", 10 * LONGEST)


def to_labels(pairs: Mapping[str, str]) -> dict[str, str]:
    """
    Return the labels that store *pairs*; a long value is stored in several labels.

    >>> to_labels({"owner": "me", "box": "ob-1"})
    {'onebox-owner': 'me', 'onebox-box': 'obZ2d1'}
    """
    found = {}
    for key, value in pairs.items():
        coded = ALPHABET.encode(value)
        for at in range(0, len(coded) or 1, LONGEST):
            piece = f".{at // LONGEST}" if at else ""
            found[f"{PREFIX}{key}{piece}"] = coded[at : at + LONGEST]
    return found


def from_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """
    Return the pairs that onebox's labels store; other labels are left out.

    >>> from_labels({"onebox-box": "obZ2d1", "team": "blue"})
    {'box': 'ob-1'}
    """
    found: dict[str, str] = {}
    for label, coded in sorted((labels or {}).items()):
        if label.startswith(PREFIX):
            key = label[len(PREFIX) :].partition(".")[0]
            found[key] = found.get(key, "") + coded
    return {key: ALPHABET.decode(coded) for key, coded in found.items()}


def selector(**pairs: str) -> str:
    """Return the label selector that finds onebox's resources with these pairs."""
    labels = to_labels({"managed": "1", **pairs})
    return ",".join(f"{label}={value}" for label, value in labels.items())
