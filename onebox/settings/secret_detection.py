"""Recognize keys and passwords, so that onebox.toml and messages contain none."""

from __future__ import annotations

import re

# These are formats of keys, one per line. The issuers publish them so that scanners can
# find leaked keys.
_SECRETS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{20,}"
    r"|AccountKey=[A-Za-z0-9+/]{40,}"
    r"|ATATT3x[A-Za-z0-9_=-]{20,}"
    r"|dapi[0-9a-f]{32}"
    r"|dckr_pat_[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}"
    r"|GOCSPX-[A-Za-z0-9_-]{16,}"
    r"|gsk_[A-Za-z0-9]{20,}"
    r"|hvs\.[A-Za-z0-9_-]{16,}"
    r"|hooks\.slack\.com/services/T[A-Za-z0-9_/]{16,}"
    r"|npm_[A-Za-z0-9]{30,}"
    r"|nvapi-[A-Za-z0-9_-]{20,}"
    r"|pypi-AgEI[A-Za-z0-9_-]{16,}"
    r"|r8_[A-Za-z0-9]{30,}"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|ya29\.[A-Za-z0-9_-]{20,}"
    r"|AIza[A-Za-z0-9_-]{20,}"
    r"|do[opr]_v1_[A-Za-z0-9]{8,}"
    r"|gh[opsur]_[A-Za-z0-9]{16,}"
    r"|github_pat_[A-Za-z0-9_]{16,}"
    r"|glpat-[A-Za-z0-9_-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}"
    r"|xox[abprs]-[A-Za-z0-9-]{16,}"
    # A key with dashes must have capital letters and digits, unlike words that are
    # joined with dashes (sk-learn-…).
    r"|sk-(?:[A-Za-z0-9]{20,}|(?=[\w-]{0,99}[A-Z])(?=[\w-]{0,99}[0-9])[\w-]{20})"
    r")"
    r"|-----BEGIN"
    # This matches a password in a URL, but not $TOKEN, which is a variable's name and
    # not its value.
    r"|://[^/\s:@]{1,99}:[^/\s@$]{1,999}@"
)


# An AWS secret key has 40 characters and no fixed prefix, so `_is_random` decides
# whether 40 characters are a key.
_FORTY = re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_MOST_SLASHES, _LONGEST_WORD = 4, re.compile(r"[a-z]{7}")

# Variables with these names hold a secret, whatever the value looks like.
_PASSWORDS = re.compile(
    r"(?:.*_)?(?:[A-Z]*PASSW(?:OR)?D|PASSPHRASE|PWD|SECRET|SECRET_KEY|"
    r"SECRET_ACCESS_KEY|PRIVATE_KEY)",
    re.IGNORECASE,
)
# Variables with these names hold a secret only if the value looks random. The names
# PAD_TOKEN and SORT_KEY match too, but the values of such variables are no secrets.
_TOKENS = re.compile(r"(?:.*_)?(?:TOKEN|[A-Z]*KEY|CREDENTIALS?|PAT)", re.IGNORECASE)
_RANDOM = re.compile(
    r"(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16}"
)
_SWITCHES = frozenset(["true", "false", "yes", "no", "on", "off", "none", "0", "1"])
_ASSIGNMENT = re.compile(
    r"(?<![\w$-])(?:([A-Za-z_][\w-]{0,63})=|--([a-z][\w-]{0,63})[= ])"
    r"[\"']?([^\s\"']+)"
)


def looks_secret(text: str) -> bool:
    """Return whether a text contains something in the format of a key or password."""
    if _SECRETS.search(text) is not None:
        return True
    if any(_is_random(word) for word in _FORTY.findall(text)):
        return True
    return any(
        names_secret(name or option, value)
        for name, option, value in _ASSIGNMENT.findall(text)
    )


def names_secret(name: str, value: str) -> bool:
    """Return whether a variable or option with this name and value holds a secret."""
    name = name.replace("-", "_")
    # A value with such a beginning is the name of another variable or the path of a
    # file, and not a secret.
    if not value or value.startswith(("$", "/", "~", "./", "%", "{")):
        return False
    if value.lower() in _SWITCHES:
        return False
    if _PASSWORDS.fullmatch(name):
        return True
    return bool(_TOKENS.fullmatch(name) and _RANDOM.search(value))


def _is_random(text: str) -> bool:
    """Return whether forty characters look random and not like a path or a hash."""
    classes = ("[A-Z]", "[a-z]", "[0-9]")
    return (
        all(re.search(characters, text) for characters in classes)
        and text.count("/") <= _MOST_SLASHES
        and _LONGEST_WORD.search(text) is None
    )
