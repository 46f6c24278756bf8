"""Define the calls that a cloud of simple servers implements, and what they return."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.errors import Pending
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.kernel.wait import Poller
from onebox.providers.values import Box, BoxState, Request, Tags

T = TypeVar("T")
PairKey = Literal["box", "owner"]
Switch = Literal["on", "shutdown", "off"]
# Each cloud of simple servers has these kinds of resources.
FIREWALL, SSH_KEY = "firewall", "ssh key"


@dataclass(frozen=True)
class Resource:
    """
    An object of the cloud that belongs to a box or to an owner.

    Attributes:
        kind: The cloud's word for this kind of object, such as "volume".

        pairs: The key-value pairs in its tags. They include "owner" and "box", unless
            the object has no owner or no box.

        hourly: Its price in USD an hour, None if that is unknown.

        created: When it was created (epoch seconds), 0 if that is unknown.

        raw: The cloud's own description of it.
    """

    kind: str
    id: str
    pairs: Mapping[str, str]
    hourly: float | None = 0.0
    created: float = 0.0
    raw: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Server(Resource):
    """
    A server, with the metadata of its box.

    Attributes:
        stored: The metadata in the server's tags, None if the server does not belong to
            onebox. The place in its offer is the place of the server.

        host: The address of the server's ssh port, "" while it has none.
    """

    stored: BoxMetadata | None = None
    state: BoxState = "starting"
    host: str = ""


class ServerAPI(abc.ABC):
    """
    The calls of one cloud.

    A call raises `Pending` if its object is busy with another action, `Exists` if an
    object of this name exists already, and `Gone` if its object does not exist.

    Attributes:
        title: The name of the cloud in sentences.

        token: The token for all calls.

        servers_address: The API address of all servers, with a slash at the end.

        number_path: The path in the cloud's metadata server at which a server reads its
            own id.

        largest_user_data: The limit of user data in bytes.

        belonging_kinds: The kinds of resources that can belong to a box.

        deleted_first: The kinds among *belonging_kinds* that are deleted before the
            servers.
    """

    title: str
    token: str
    servers_address: str
    number_path: str
    largest_user_data: int
    belonging_kinds: tuple[str, ...]
    deleted_first: tuple[str, ...] = ()
    timeouts: Timeouts
    clock: ServerClock
    poller: Poller

    @abc.abstractmethod
    def servers(self, key: PairKey, value: str) -> list[Server]:
        """
        Return the servers with the pair *key*: *value* in their tags, oldest first.
        """

    @abc.abstractmethod
    def server(self, server: Server) -> Server | None:
        """Return a server in its present state, None if it does not exist any more."""

    @abc.abstractmethod
    def create_server(
        self, request: Request, image: Any, ssh_key: Any, user_data: str
    ) -> Server:
        """Create the server that *request* describes, with the tags of its box."""

    @abc.abstractmethod
    def set_metadata(self, server: Server, stored: BoxMetadata) -> None:
        """Write the deadline and the host key of *stored* to a server's tags."""

    @abc.abstractmethod
    def switch(self, server: Server, how: Switch) -> None:
        """Power a server on, shut down its system, or cut its power, as *how* says."""

    @abc.abstractmethod
    def resources(self, kind: str, key: PairKey, value: str) -> list[Resource]:
        """
        Return the resources of a kind, not servers, with the pair *key*: *value*.
        """

    @abc.abstractmethod
    def resource(self, kind: str, id: str) -> Resource | None:
        """
        Return a firewall or an ssh key by its id, None if it is gone.

        The object may belong to another owner.
        """

    @abc.abstractmethod
    def delete(self, resource: Resource) -> None:
        """Delete a server or any other resource."""

    @abc.abstractmethod
    def create_firewall(self, tags: Tags, box: str, networks: Sequence[str]) -> None:
        """Create the firewall of a box, which opens ssh to these networks only."""

    @abc.abstractmethod
    def networks(self, firewall: Resource) -> Sequence[str]:
        """
        Return the networks to which a firewall opens ssh.

        Return () if the firewall opens anything other than ssh.
        """

    @abc.abstractmethod
    def set_networks(self, firewall: Resource, networks: Sequence[str]) -> None:
        """Change a firewall so that it opens ssh to these networks only."""

    @abc.abstractmethod
    def ensure_ssh_key(self, owner: str, public: str) -> Any:
        """
        Register an ssh key unless it is registered; return it for `create_server`.

        Without a registered key, these clouds mail a root password to the user.
        """

    def belongings(self, box: str) -> list[Resource]:
        """Return all resources that belong to a box, except its servers."""
        kinds = self.belonging_kinds
        return [one for kind in kinds for one in self.resources(kind, "box", box)]

    def when_free(self, call: Callable[[], T], seconds: float) -> T:
        """Make *call*, repeat it while its object is busy, and return its result."""
        return self.poller.until_free(
            call, seconds, lambda error: isinstance(error, Pending)
        )

    def servers_to_delete(self, box: Box) -> list[Server]:
        """
        Return the servers of a box.

        A cloud whose lists lag behind waits until they show the server of a new box.
        """
        return self.servers("box", box.id)

    def before_delete(self, server: Server) -> None:  # noqa: B027 - overriding is optional
        """Wait until no earlier call can create anything more from this server."""

    def after_delete(self, servers: Sequence[Server]) -> None:  # noqa: B027 - overriding is optional
        """Delete the objects that only the deleted servers of a box have used."""

    def after_create(self, server: Server) -> None:  # noqa: B027 - overriding is optional
        """Tag the objects that the cloud created together with a server."""
