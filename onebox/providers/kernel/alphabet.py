"""The characters that a cloud's tags may hold, and texts written in them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from onebox.errors import ProviderError

# The length that a cut text keeps, in front of its hash.
_SHORT = 40


@dataclass(frozen=True)
class Alphabet:
    """
    The characters that a cloud's tags may hold.

    A byte that is not in *plain* becomes *escape* and two hex digits. If the result
    is longer than *longest*, the text is refused; with *shorten* it is cut instead,
    and a hash keeps different texts different.
    """

    plain: str
    escape: str
    longest: int
    shorten: bool = False

    def encode(self, text: str) -> str:
        """
        Return a text in this alphabet.

        Raises:
            ProviderError: The result is too long.

        >>> Alphabet("abc-", "_", 63).encode("a.b")
        'a_2eb'
        """
        coded = "".join(
            chr(byte) if chr(byte) in self.plain else f"{self.escape}{byte:02x}"
            for byte in text.encode()
        )
        if len(coded) <= self.longest:
            return coded
        if not self.shorten:
            raise ProviderError(f"{text[:60]!r} is too long for a tag")
        digest = hashlib.sha256(text.encode()).hexdigest()[:20]
        return f"{coded[:_SHORT]}{self.escape}h{digest}"

    def decode(self, coded: str) -> str:
        """
        Return the text that was encoded; only its beginning if that was cut.

        >>> Alphabet("abc-", "_", 63).decode("a_2eb")
        'a.b'
        """
        if self.shorten:
            coded = coded.partition(f"{self.escape}h")[0]
        return re.sub(
            re.escape(self.escape).encode() + rb"([0-9a-f]{2})",
            lambda digits: bytes([int(digits[1], 16)]),
            coded.encode(),
        ).decode(errors="replace")
