"""
This client calls AWS's API: credentials, region, retries and parallel calls.

The SDK's own retries are off. The SDK would repeat a call that AWS refused with "no
capacity", as if that were a server error, and so delay the next offer by seconds.
`kernel.retry` decides instead which calls are repeated. Every call of onebox may be
repeated: a call that creates something carries a token, or a name that can exist only
once.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from onebox.errors import SetupError
from onebox.providers import with_bytecode
from onebox.providers.aws import errors
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.retry import Retry
from onebox.providers.kernel.wait import Poller

Answer = Mapping[str, Any]
S = TypeVar("S")
T = TypeVar("T")

# At most this many calls run in parallel.
AT_ONCE = 8

# AWS's own tools read both of these environment variables. By default boto3 reads only
# AWS_DEFAULT_REGION.
_VARIABLES = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
# The SDK's names for the places of credentials that are no profile. The AWS CLI ignores
# variables with credentials if a profile is named on its command line.
_WITHOUT_PROFILE = (
    *("env", "assume-role-with-web-identity", "container-role", "iam-role"),
)


class Cloud:
    """
    One AWS account, with the user's own AWS configuration.

    Attributes:
        clock: Returns the time (epoch seconds) by AWS's clock.

        retry: The rule by which calls are repeated.

        poller: The loop that waits for a change of state.

    Args:
        region: The region in the settings, "" if they name none.

        clock: Returns the time (epoch seconds) of this machine.

        sleep: Pauses for a number of seconds.

        timeout: A call fails if AWS sends nothing for this many seconds.

    Attributes:
        user_tags: The user's tags. Each call that creates objects sets them.
    """

    def __init__(
        self,
        region: str = "",
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        timeout: float = 30.0,
    ) -> None:
        self.user_tags: Mapping[str, str] = {}
        self._region = region
        self._timeout = timeout
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()
        self.clock = ServerClock(clock)
        self.retry = Retry(sleep=sleep)
        # The poller has no clock, and takes the sum of its pauses as the time. Tests
        # need that, because they pass a sleep that is 40 times faster.
        self.poller = Poller(sleep, None)

    @property
    def region(self) -> str:
        """Return the region to work in. Raises SetupError if none is set."""
        found = self._region or self.session.get_config_variable("region")
        if not found:
            raise SetupError(
                "no AWS region is set",
                next='set region = "…" under [aws] in onebox.toml, or AWS_REGION',
            )
        return str(found)

    @property
    def session(self) -> Any:
        """Return the botocore session with the user's configuration."""
        with self._lock:
            if self._session is None:
                with with_bytecode():
                    import boto3.session
                    import botocore.session
                core = botocore.session.Session(session_vars=_VARIABLES)
                with errors.explained("the AWS configuration"):
                    where = core.get_config_variable("data_path")
                    core.register_component("data_loader", _models(where))
                    parsers = core.get_component("response_parser_factory")
                    parsers.set_parser_defaults(timestamp_parser=_moment)
                    boto3.session.Session(botocore_session=core)
                self._session = core
            return self._session

    @property
    def profile(self) -> str:
        """Return the profile that the credentials come from, "" if there is none."""
        found = self.session.get_credentials()
        if found is None or found.method in _WITHOUT_PROFILE:
            return ""
        return str(self.session.profile or "")

    def known_regions(self) -> list[str]:
        """Return the regions that this version of the SDK knows."""
        session = self.session
        return [
            region
            for partition in session.get_available_partitions()
            for region in session.get_available_regions("ec2", partition)
        ]

    def once(self, service: str, operation: str, region: str, **words: Any) -> Answer:
        """Make a call once; raise the OneboxError that stands for an error response."""
        if self.user_tags and "TagSpecifications" in words:
            words["TagSpecifications"] = [
                {**one, "Tags": [*one["Tags"], *self.user_tag_list()]}
                for one in words["TagSpecifications"]
            ]
        with errors.explained(operation, region, self):
            answer: Answer = getattr(self.client(service, region), operation)(**words)
            return answer

    def user_tag_list(self) -> list[dict[str, str]]:
        """Return the user's tags in the format of AWS's API."""
        return [{"Key": key, "Value": text} for key, text in self.user_tags.items()]

    def call(self, service: str, operation: str, region: str, **words: Any) -> Answer:
        """
        Make a call, repeated as `kernel.retry` describes.

        Raises:
            Unclear: No response came, and the call may have taken effect.
        """
        return self.retry.call(lambda: self.once(service, operation, region, **words))

    def ec2(self, region: str = "") -> EC2:
        """
        Return the `EC2` of *region*, or of the account's own `region` if that is "".
        """
        return EC2(self, region or self.region)

    def together(self, questions: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run functions in parallel; return their results or raise the first error."""
        return self.each(questions, _call)

    def each(self, items: Sequence[S], do: Callable[[S], T]) -> list[T]:
        """
        Call *do* with each item in parallel; return the results.

        If calls of *do* raise errors, the first of these is raised.
        """
        return [result() for result in self.answers(items, do)]

    def answers(
        self, items: Sequence[S], do: Callable[[S], T]
    ) -> list[Callable[[], T]]:
        """
        Call *do* with each item in parallel, and wait until all calls have ended.

        The result has a function for each item. It returns what *do* returned for the
        item, or raises the error that *do* raised.
        """
        with ThreadPoolExecutor(min(AT_ONCE, max(len(items), 1))) as pool:
            return [pool.submit(do, item).result for item in items]

    def client(self, service: str, region: str) -> Any:
        """Return the SDK's client of a service in a region."""
        # Several threads may use one client, but only one thread at a time may create
        # a client with botocore.
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
                        **(self._options() if service == "s3" else {}),
                    ),
                )
                client.meta.events.register("after-call", self._set_clock)
                self._clients[service, region] = client
            return client

    @functools.cached_property
    def has_credentials(self) -> bool:
        """Whether the user's configuration has credentials."""
        with errors.explained("the AWS credentials"):
            return self.session.get_credentials() is not None

    def _options(self) -> Mapping[str, Any]:
        """
        Return the options of a client of S3.

        By default the SDK signs links in some regions with an older algorithm, which
        newer regions refuse. Public buckets can be read without a signature.
        """
        from botocore import UNSIGNED

        return {"signature_version": "s3v4" if self.has_credentials else UNSIGNED}

    def _set_clock(self, http_response: Any, **_: Any) -> None:
        self.clock.correct(http_response.headers.get("Date"))


@dataclass(frozen=True)
class EC2:
    """Calls of EC2 and related services, in one region of an account."""

    cloud: Cloud
    region: str

    @property
    def clock(self) -> ServerClock:
        """Return AWS's clock."""
        return self.cloud.clock

    @property
    def poller(self) -> Poller:
        """Return the loop that waits for a change of state."""
        return self.cloud.poller

    def once(self, operation: str, *, service: str = "ec2", **words: Any) -> Answer:
        """Make a call once; see `Cloud.once`."""
        return self.cloud.once(service, operation, self.region, **words)

    def call(self, operation: str, *, service: str = "ec2", **words: Any) -> Answer:
        """Make a call, repeated as `kernel.retry` describes; see `Cloud.call`."""
        return self.cloud.call(service, operation, self.region, **words)

    def pages(self, operation: str, key: str, **words: Any) -> list[Answer]:
        """Return the items under *key* in a response, collected from all its pages."""
        items: list[Answer] = []
        answer = self.call(operation, **words)
        while True:
            items += answer.get(key, ())
            token = answer.get("NextToken")
            if not token:
                return items
            answer = self.call(operation, **words, NextToken=token)


@functools.lru_cache(maxsize=1)
def _models(where: str | None) -> Any:
    """
    Return the loader of the SDK's service models, which all sessions share.

    *where* is the setting `data_path` of the user's AWS configuration.
    """
    from botocore.loaders import create_loader

    return create_loader(where)


def _moment(value: Any) -> Any:
    """
    Return a time of an answer as a datetime.

    The SDK's own parser accepts more forms, and takes half of the time of a listing of
    many objects.
    """
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        return parse_timestamp(value)


def _call(function: Callable[[], T]) -> T:
    return function()
