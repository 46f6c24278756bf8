"""
Each cloud maps the error responses of its API to error classes with these rules.

A cloud describes its error responses in a table of `Rule`s. `explain` finds the first
rule that matches a response, and builds the error with the rule's sentence and next
command.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from onebox.errors import OneboxError, ProviderError, QuotaExceeded, Unclear


class Unanswered(ProviderError):
    """
    The API was not reached, or gave no usable answer to a call that changes nothing.
    """


class Exists(ProviderError):
    """A resource of this name exists already."""


class Pending(ProviderError):
    """The object is busy with an earlier action, or is still in use."""


class Failed(Unclear):
    """
    The API reported a failure of its own, not a refusal of the call.

    The call may have taken effect before the failure, but takes no effect after it.
    """


def header_seconds(text: str) -> float | None:
    """Return the whole number of seconds in a header's text, None if it is none."""
    # str.isdigit() is true for ², which is no number, and a number can be endless.
    return float(text) if re.fullmatch(r"[0-9]{1,12}", text.strip()) else None


class RetryAfter(Exception):
    """
    An error, and the pause (seconds) that the server demands before the next attempt.
    """

    def __init__(self, error: OneboxError, seconds: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.seconds = seconds


@dataclass(frozen=True)
class Refusal:
    """
    An error response of an API.

    Attributes:
        call: The name of the call, such as "RunInstances in us-east-1".

        code: The API's own code for the error, "" if it has none.

        details: The text that a rule searches for its *pattern*. If it is "", the rule
            searches the code and the message.

        changes: Whether the call could have changed anything.
    """

    call: str
    message: str
    code: str = ""
    status: int = 0
    details: str = ""
    changes: bool = True

    @property
    def text(self) -> str:
        """Return the call, the message and the code in one sentence."""
        if not self.message:
            return f"{self.call}: {self.code or self.status}"
        return f"{self.call}: {self.message}" + (f" ({self.code})" if self.code else "")


@dataclass(frozen=True)
class Rule:
    """
    One kind of error response, and the error to raise for it.

    The conditions are *status*, *code*, *pattern* and *changes*. A rule matches if all
    its conditions match; an empty condition matches every response. *text*, *next* and
    *limit* are templates for the texts of the error. A template can contain the fields
    of `Refusal`, such as `{message}`, its sentence as `{text}`, and the named groups of
    *code* and *pattern*.

    Attributes:
        error: The class of the error to raise.

        status: The HTTP status codes that match.

        code: A regular expression that must match the API's whole code for the error.

        pattern: A regular expression that is searched in the details of the `Refusal`;
            upper and lower case are equal.

        changes: Whether the call could have changed anything; None matches both.
    """

    error: type[OneboxError]
    text: str = "{text}"
    status: Container[int] = ()
    code: str = ""
    pattern: str = ""
    changes: bool | None = None
    next: str = ""
    cause: str = ""
    limit: str = ""

    def match(self, refusal: Refusal) -> OneboxError | None:
        """Return the error for *refusal*, None if this rule does not match it."""
        if self.changes not in (None, refusal.changes):
            return None
        if self.status != () and refusal.status not in self.status:
            return None
        groups: dict[str, str] = {}
        if self.code:
            found = re.fullmatch(self.code, refusal.code)
            if found is None:
                return None
            groups.update(found.groupdict(""))
        if self.pattern:
            details = refusal.details or f"{refusal.code} {refusal.message}"
            found = re.search(self.pattern, details, re.IGNORECASE)
            if found is None:
                return None
            groups.update(found.groupdict(""))
        return self._build({**vars(refusal), "text": refusal.text, **groups})

    def _build(self, fields: dict[str, object]) -> OneboxError:
        text, advice = self.text.format(**fields), self.next.format(**fields)
        if issubclass(self.error, QuotaExceeded):
            limit = self.limit.format(**fields)
            return self.error(text, next=advice, cause=self.cause, limit=limit)
        return self.error(text, next=advice, cause=self.cause)


def explain(rules: Sequence[Rule], refusal: Refusal) -> OneboxError:
    """
    Return the error of the first rule that matches *refusal*.

    Return a ProviderError if no rule matches.
    """
    for rule in rules:
        error = rule.match(refusal)
        if error is not None:
            return error
    return ProviderError(refusal.text)
