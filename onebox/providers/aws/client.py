"""
The AWS account: credentials, region, and one call at a time.

The SDK's own retries are off, because it takes "no capacity" for a fault of the
server's that may pass. What is repeated here is what came to no clear end, or was
one call too many. Every call of ours may be repeated: those that create carry
a token or a name that can be had only once.
"""

from __future__ import annotations

import functools
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from onebox.errors import ProviderError, Throttled, Unclear, UsageError
from onebox.providers import with_bytecode
from onebox.providers.aws import errors
from onebox.providers.kernel.clock import ServerClock

Answer = Mapping[str, Any]
S = TypeVar("S")
T = TypeVar("T")

# How often a call is made that comes to no clear end.
ATTEMPTS = 4
# For how long, in all, calls are put off that were too many.
THROTTLED_SECONDS = 300.0
# How many regions, or questions about one, are asked at once.
AT_ONCE = 8

# AWS's own tools read both; boto3 by itself knows only the second.
_VARIABLES = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}

_random = secrets.SystemRandom()


class Cloud:
    """
    The account, as the user's own AWS configuration gives it.

    Args:
        region: The region that the settings name, if they name one.

        sleep: What waits, in seconds.

        timeout: How long a call may take to answer, in seconds.
    """

    def __init__(
        self,
        region: str | None,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        timeout: float,
    ) -> None:
        self._region = region
        self._timeout = timeout
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()
        self.clock = ServerClock(clock)
        self.sleep = sleep

    @property
    def region(self) -> str:
        """Return the region to work in. Raises UsageError if none is named."""
        found = self._region or self.session.get_config_variable("region")
        if not found:
            raise UsageError(
                "no AWS region is set",
                next='set region = "…" under [aws] in onebox.toml, or AWS_REGION',
            )
        return str(found)

    @property
    def session(self) -> Any:
        """Return botocore's session, which has read the user's configuration."""
        with self._lock:
            if self._session is None:
                with with_bytecode():
                    import boto3.session
                    import botocore.session
                core = botocore.session.Session(session_vars=_VARIABLES)
                with errors.explained("the AWS configuration"):
                    where = core.get_config_variable("data_path")
                    core.register_component("data_loader", _models(where))
                    boto3.session.Session(botocore_session=core)
                self._session = core
            return self._session

    def known_regions(self) -> list[str]:
        """Return the regions that this version of the SDK has heard of."""
        session = self.session
        return [
            region
            for partition in session.get_available_partitions()
            for region in session.get_available_regions("ec2", partition)
        ]

    def once(self, service: str, operation: str, region: str, **words: Any) -> Answer:
        """Make a call once. Raises the error that its refusal amounts to."""
        with errors.explained(operation, region, self):
            answer: Answer = getattr(self._client(service, region), operation)(**words)
            return answer

    def call(self, service: str, operation: str, region: str, **words: Any) -> Answer:
        """
        Make a call, again where that can help.

        Raises:
            Unclear: It came to no clear end, and may have changed something.
        """
        return self.repeat(lambda: self.once(service, operation, region, **words))

    def repeat(self, attempt: Callable[[], T]) -> T:
        """Do what may be repeated until it comes to a clear end, within limits."""
        backoff = Backoff(self.sleep)
        while True:
            try:
                return attempt()
            except Throttled:
                if not backoff.wait(THROTTLED_SECONDS):
                    raise
            except ProviderError as error:
                passing = isinstance(error, (Unclear, errors.Unanswered))
                if not passing or not backoff.wait_again(ATTEMPTS):
                    raise

    def pages(
        self, operation: str, key: str, region: str, **words: Any
    ) -> list[Mapping[str, Any]]:
        """Return all that EC2 has to say under *key*, page by page."""
        found: list[Mapping[str, Any]] = []
        answer = self.call("ec2", operation, region, **words)
        while True:
            found += answer.get(key, ())
            token = answer.get("NextToken")
            if not token:
                return found
            answer = self.call("ec2", operation, region, **words, NextToken=token)

    def together(self, questions: Sequence[Callable[[], Any]]) -> list[Any]:
        """Ask several things at once; return the answers, or raise the first error."""
        return [answer() for answer in self.answers(questions, _asked)]

    def each(self, things: Sequence[S], do: Callable[[S], T]) -> list[T]:
        """Do something with several things at once; raise the first error."""
        return [answer() for answer in self.answers(things, do)]

    def answers(
        self, things: Sequence[S], do: Callable[[S], T]
    ) -> list[Callable[[], T]]:
        """Do something with several things at once; return what gives each result."""
        with ThreadPoolExecutor(min(AT_ONCE, max(len(things), 1))) as pool:
            return [pool.submit(do, thing).result for thing in things]

    def _client(self, service: str, region: str) -> Any:
        # Clients may be shared among threads, but not made in several at once.
        with self._lock:
            client = self._clients.get((service, region))
            if client is None:
                from botocore.config import Config

                client = self.session.create_client(
                    service,
                    region_name=region,
                    config=Config(
                        connect_timeout=min(self._timeout, 10.0),
                        read_timeout=self._timeout,
                        retries={"mode": "standard", "total_max_attempts": 1},
                        max_pool_connections=AT_ONCE,
                        user_agent_extra="onebox",
                    ),
                )
                client.meta.events.register("after-call", self._heard)
                self._clients[service, region] = client
            return client

    def _heard(self, http_response: Any, **_: Any) -> None:
        self.clock.heard(http_response.headers.get("Date"))


class Backoff:
    """The waits between attempts: random, twice as long on average each time."""

    def __init__(
        self, sleep: Callable[[float], None], first: float = 1.0, most: float = 20.0
    ) -> None:
        self._sleep = sleep
        self._first = first
        self._most = most
        self._times = 0
        self._waited = 0.0

    def wait(self, seconds: float) -> bool:
        """Wait, unless that has been done for so many seconds in all."""
        if self._waited >= seconds:
            return False
        self._nap()
        return True

    def wait_again(self, attempts: int) -> bool:
        """Wait, unless so many attempts have been made."""
        if self._times + 1 >= attempts:
            return False
        self._nap()
        return True

    def _nap(self) -> None:
        longest = min(self._most, self._first * 2**self._times)
        seconds = _random.uniform(longest / 4, longest)
        self._times += 1
        self._waited += seconds
        self._sleep(seconds)


def poll(cloud: Cloud, look: Callable[[], T | None], seconds: float, what: str) -> T:
    """
    Look until there is something to return: after a second, then ever less often.

    Raises:
        ProviderError: It takes longer than *seconds*.
    """
    found = wait_for(cloud, look, seconds)
    if found is None:
        raise ProviderError(f"{what} has taken longer than {seconds:.0f} s")
    return found


def wait_for(cloud: Cloud, look: Callable[[], T | None], seconds: float) -> T | None:
    """Look as `poll` does, and return None if there is nothing for so long."""
    nap, waited = 1.0, 0.0
    while True:
        found = look()
        if found is not None or waited >= seconds:
            return found
        cloud.sleep(nap)
        waited += nap
        nap = min(nap * 1.5, 5.0)


@functools.lru_cache(maxsize=1)
def _models(where: str | None) -> Any:
    """Return what reads the SDK's models of the services, each one once."""
    from botocore.loaders import create_loader

    return create_loader(where)


def _asked(question: Callable[[], T]) -> T:
    return question()
