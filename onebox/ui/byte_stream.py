"""Write bytes to stdout or stderr, also where Python code has replaced them."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

from onebox.ui.console import describe, read_together, write_fully


class ByteStream:
    """
    The stdout or stderr of this process, for bytes.

    A notebook and `contextlib.redirect_stdout` replace `sys.stdout` by another stream.
    It gets the bytes in its own buffer if it has one, and otherwise as text.

    Args:
        name: "stdout" or "stderr".

    Attributes:
        problem: Why the latest write failed; "" if the reader is gone.
    """

    problem = ""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fd = {"stdout": 1, "stderr": 2}[name]
        # A piece of output may end in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def stream(self) -> TextIO | None:
        """Return the stream of `sys` now, None if it is closed."""
        stream: TextIO | None = getattr(sys, self._name)
        return stream

    @property
    def replaced(self) -> bool:
        """Return whether the stream is another one than the file descriptor."""
        try:
            return self.stream is not None and self.stream.fileno() != self._fd
        except (AttributeError, OSError, ValueError):
            return True

    def write(self, data: bytes) -> bool:
        """Write all bytes; return False if that fails."""
        stream = self.stream
        if stream is None:
            return False
        try:
            if not self.replaced:
                write_fully(self._fd, data)
                return True
            buffer = getattr(stream, "buffer", None)
            if buffer is None:
                stream.write(self._decoder.decode(data))
            else:
                # The text that the stream still holds comes first.
                stream.flush()
                buffer.write(data)
            stream.flush()
        except OSError as error:
            self.problem = describe(error)
            return False
        except ValueError:
            # The stream is closed.
            return False
        return True


def shown_together(out: ByteStream, err: ByteStream) -> bool:
    """Return whether the same reader may see stdout and stderr mixed in one text."""
    if out.replaced or err.replaced:
        return out.stream is err.stream
    return read_together()
