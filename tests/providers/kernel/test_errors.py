"""The table that maps error responses to errors."""

from __future__ import annotations

from onebox.errors import Gone, NotAllowed, ProviderError, QuotaExceeded, Unclear
from onebox.providers.kernel.errors import Refusal, Rule, Unanswered, explain

RULES = (
    Rule(
        QuotaExceeded,
        code=r"\w*LimitExceeded",
        pattern=r"quota '(?P<name>\w+)'",
        text="a quota: {message}",
        next="ask for more {name}",
        limit="{name}",
    ),
    Rule(QuotaExceeded, code=r"\w*LimitExceeded"),
    Rule(NotAllowed, status=(401, 403), next="inv doctor"),
    Rule(Unclear, status=range(500, 600), changes=True),
    Rule(Unanswered, status=range(500, 600)),
    Rule(Gone, pattern="not found"),
)


def refusal(
    code: str = "", message: str = "no", status: int = 400, changes: bool = True
) -> Refusal:
    """Return an error response."""
    return Refusal("making ob-1", message, code, status, changes=changes)


def test_the_first_rule_that_matches_decides() -> None:
    """A special rule stands before the general one."""
    error = explain(RULES, refusal("VcpuLimitExceeded", "Quota 'CPUS' is used up"))
    assert isinstance(error, QuotaExceeded)
    assert error.limit == "CPUS"
    assert error.message == "a quota: Quota 'CPUS' is used up"
    assert error.next == "ask for more CPUS"
    error = explain(RULES, refusal("VcpuLimitExceeded"))
    assert isinstance(error, QuotaExceeded)
    assert error.limit == ""
    assert error.message == "making ob-1: no (VcpuLimitExceeded)"


def test_status_is_a_condition() -> None:
    """A status selects a rule."""
    error = explain(RULES, refusal(status=403))
    assert type(error) is NotAllowed
    assert error.next == "inv doctor"


def test_a_failed_question_is_not_unclear() -> None:
    """A server error is unclear only if the call could have changed anything."""
    assert type(explain(RULES, refusal(status=503))) is Unclear
    assert type(explain(RULES, refusal(status=503, changes=False))) is Unanswered


def test_an_unknown_response_is_an_error_of_the_provider() -> None:
    """A response that no rule matches keeps its own words."""
    error = explain(RULES, refusal("Odd", "{curly} words"))
    assert type(error) is ProviderError
    assert error.message == "making ob-1: {curly} words (Odd)"


def test_patterns_ignore_case() -> None:
    """A pattern is searched in the code and the message, in any case."""
    assert type(explain(RULES, refusal(message="Not Found"))) is Gone
