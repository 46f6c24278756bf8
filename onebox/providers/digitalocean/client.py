"""
The DigitalOcean API client: every request of onebox goes through this file.

python-digitalocean supplies the API's address and the token, from the environment
variables that its users know. Its functions for requests are not used, because they
have no time limit, raise errors without the status and the headers of the response,
send the token to redirected addresses, and never repeat a request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from digitalocean.baseapi import BaseAPI, EndPointError

from onebox import __version__
from onebox.errors import ConfigError, OneboxError, ProviderError
from onebox.providers.digitalocean import errors
from onebox.providers.kernel import http
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.timeouts import Timeouts

# A list with more pages than this counts as endless.
PAGES = 500
PER_PAGE = 200

Answer = dict[str, Any]
Query = Mapping[str, str]

# A second POST to one of these paths would create a second object or begin a second
# action.
_ONCE = "droplets|.*/actions"
_ENDPOINT = "DIGITALOCEAN_END_POINT"


class Cloud(BaseAPI):  # type: ignore[misc] # the SDK has no types
    """
    The API; its address and the token come from the SDK's environment variables.

    Attributes:
        address: The address of the API, with a slash at the end.

        secret: The token, for requests and for comparison with another token.

        clock: Returns the time (epoch seconds) by DigitalOcean's clock.

        timeouts: The time limits of requests and waits.

        poller: The loop that waits for a change of state.

    Args:
        sleep: Pauses for a number of seconds.

        clock: Returns the time of this machine (epoch seconds).
    """

    def __init__(
        self,
        timeouts: Timeouts,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.timeouts = timeouts
        self.poller = timeouts.poller(sleep)
        self.clock = ServerClock(clock)
        self.address = self.secret = ""
        trouble: OneboxError | None
        try:
            super().__init__()
        except EndPointError:
            trouble = ConfigError(
                f"{_ENDPOINT} is not an address",
                next="unset it, or https://api.digitalocean.com/v2/",
            )
        else:
            self.secret = str(self.token or "").strip()
            self.address = str(self.end_point).rstrip("/") + "/"
            trouble = http.trouble(
                "DigitalOcean", errors.TOKEN, self.secret, _ENDPOINT, self.address
            )
        self._http = http.Session(
            "DigitalOcean",
            self.address,
            self.secret,
            errors.explain_refusal,
            timeouts,
            self.clock,
            once=_ONCE,
            trouble=trouble,
            sleep=sleep,
        )

    def get(self, path: str, **query: str) -> Answer:
        """Return one resource. Raises Gone if it does not exist."""
        return self._request("GET", path, query)

    def all(self, path: str, key: str, **query: str) -> list[Answer]:
        """Return the items of the list *key* from all pages, each item once."""
        found: dict[str, Answer] = {}
        for page in self._pages(path, query):
            for item in page.get(key) or []:
                found.setdefault(str(item.get("id", item.get("slug"))), item)
        return list(found.values())

    def post(self, path: str, body: Answer) -> Answer:
        """
        Create a resource, or begin an action.

        Raises:
            Unclear: The call may have taken effect, or may still do so. A `Failed`
                error means that it takes no effect later, if it has not already.
        """
        return self._request("POST", path, {}, body)

    def put(self, path: str, body: Answer) -> Answer:
        """Replace a resource; the call may be repeated."""
        return self._request("PUT", path, {}, body)

    def delete(self, path: str, body: Answer | None = None) -> None:
        """Delete a resource. Raises Gone if it does not exist."""
        self._request("DELETE", path, {}, body)

    def _pages(self, path: str, query: Query) -> Iterator[Answer]:
        for number in range(1, PAGES + 1):
            paged = {**query, "page": str(number), "per_page": str(PER_PAGE)}
            page = self._request("GET", path, paged)
            yield page
            if not ((page.get("links") or {}).get("pages") or {}).get("next"):
                return
        raise ProviderError(f"DigitalOcean's list of {path} does not end")

    def _request(
        self, method: str, path: str, query: Query, body: Answer | None = None
    ) -> Answer:
        response = self._http.request(
            method,
            self.address + path.strip("/"),
            params=dict(query),
            data=None if body is None else json.dumps(body),
            headers={
                "Authorization": f"Bearer {self.secret}",
                "Content-Type": "application/json",
                "User-Agent": f"onebox/{__version__} python-digitalocean",
            },
        )
        answer: Answer = response.json() if response.content.strip() else {}
        return answer
