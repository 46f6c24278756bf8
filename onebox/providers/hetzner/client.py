"""Open the client of the hcloud library, with the retries and errors of onebox."""

from __future__ import annotations

from hcloud import Client
from hcloud.actions import ActionFailedException, ActionTimeoutException, BoundAction

from onebox import __version__, errors
from onebox.providers.kernel import http
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.errors import Exists, Pending, Refusal, Rule, explain
from onebox.providers.kernel.timeouts import Timeouts

CLOUD = "Hetzner"
TOKEN = "HCLOUD_TOKEN"  # noqa: S105 - a variable's name
ENDPOINT = "HCLOUD_ENDPOINT"


class Invalid(errors.ProviderError):
    """A value in the call is missing or wrong."""


_OWN = "Hetzner: {message} ({code})"
_ADVICE = f"set {TOKEN} to a token with the permission Read & Write, then inv doctor"
_CLEANUP = "inv cleanup lists your boxes; Hetzner's console raises the limit"
_RULES = (
    Rule(
        errors.QuotaExceeded, _OWN, code="resource_limit.*", next=_CLEANUP, limit="all"
    ),
    Rule(errors.NotAllowed, _OWN, status=(401, 403), next=_ADVICE),
    Rule(errors.NoCapacity, _OWN, code="(resource_un|placement_).*", cause="sold out"),
    Rule(errors.Gone, _OWN, status=(404,)),
    Rule(Pending, _OWN, code="locked|conflict|resource_in_use"),
    Rule(Exists, _OWN, code="uniqueness_error"),
    Rule(Invalid, _OWN, status=(422,)),
)


class Cloud(Client):
    """
    A client for the project that the token belongs to.

    Attributes:
        clock: Returns the time (epoch seconds) by Hetzner's clock.
    """

    def __init__(self, token: str, endpoint: str, timeouts: Timeouts) -> None:
        super().__init__(
            token,
            endpoint,
            application_name="onebox",
            application_version=__version__,
            poll_interval=timeouts.poll_interval,
            poll_max_retries=round(timeouts.action / timeouts.poll_interval),
        )
        self.clock = ServerClock()
        self._client._session = http.Session(
            CLOUD,
            endpoint,
            token,
            _explain,
            timeouts,
            self.clock,
            once="servers|.*/create_image",
            trouble=http.trouble(CLOUD, TOKEN, token, ENDPOINT, endpoint),
            # The response names the end of the hour, but a new call is allowed each
            # second.
            longest_demanded=10,
        )

    def finish(self, *actions: BoundAction) -> None:
        """
        Wait until all actions are finished.

        Raises ProviderError if an action fails, and Unclear if it takes too long.
        """
        try:
            for action in actions:
                action.wait_until_finished()
        except ActionTimeoutException as error:
            raise errors.Unclear(f"Hetzner is still busy: {error.message}") from error
        except ActionFailedException as error:
            raise errors.ProviderError(f"Hetzner gave up: {error.message}") from error


def _explain(refusal: Refusal) -> errors.OneboxError:
    return explain(_RULES, refusal)
