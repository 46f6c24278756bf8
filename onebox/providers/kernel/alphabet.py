"""Write any text with the characters that a cloud allows in its tags."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from onebox.errors import ProviderError

# A text that is too long is cut to this many characters, and its hash is appended.
_SHORT = 40


@dataclass(frozen=True)
class Alphabet:
    """
    The characters that a cloud's tags may hold.

    A byte that is not in *plain* becomes *escape* and two hex digits. A result that is
    longer than *longest* is refused. If *shorten* is true, it is cut instead, and a
    hash of the whole text is appended, so that different texts stay different.
    """

    plain: str
    escape: str
    longest: int
    shorten: bool = False

    def encode(self, text: str) -> str:
        """
        Return a text written in this alphabet.

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
        Return the original text, or only its beginning if the encoded form was cut.

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
