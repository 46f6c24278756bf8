"""The providers of clouds of simple servers inherit from the class `ServerProvider`."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from onebox.errors import Gone, NotAllowed, OneboxError, ProviderError, Unclear
from onebox.providers.kernel import self_destroy
from onebox.providers.kernel.billed_off import BilledOff, BilledOffSettings
from onebox.providers.kernel.cloud_provider import CloudProvider
from onebox.providers.kernel.metadata import BoxMetadata, without_comment
from onebox.providers.kernel.servers import (
    creation,
    deletion,
    instances,
    network,
    power,
)
from onebox.providers.kernel.servers.api import (
    FIREWALL,
    SSH_KEY,
    Server,
    ServerAPI,
)
from onebox.providers.kernel.ssh_access import SSHAccess
from onebox.providers.kernel.user_data import user_data
from onebox.providers.values import Box, Check, FreeObject, Leftover, Request

# The environment of this process, from which these clouds read their tokens.
ENVIRONMENT: Mapping[str, str] = os.environ


class ServerProvider(CloudProvider):
    """
    A provider of boxes that are servers, which are billed even while powered off.

    Args:
        settings: The table of the cloud in onebox.toml.

        api: The calls of the cloud.

        my_ip: Returns the public address of this machine.

        environ: The environment variables; the setting `destroy_token` names one of
            them.

    Attributes:
        billed_off: The words of the cloud for messages about powered-off servers.
    """

    billed_off: BilledOff

    def __init__(
        self,
        settings: BilledOffSettings,
        api: ServerAPI,
        my_ip: Callable[[], str],
        environ: Mapping[str, str],
    ) -> None:
        self._settings, self._api, self._environ = settings, api, environ
        self._access = SSHAccess(
            ssh_cidr=settings.ssh_cidr, private=settings.private, my_ip=my_ip
        )
        self._notes = (self.billed_off.note(settings), *self._access.notes)
        self.stopped_is_free = bool(settings.destroy_token)
        self.clock = api.clock
        self.consistency_lag = api.timeouts.consistency_lag
        self.poll_interval = api.timeouts.poll_interval

    @abc.abstractmethod
    def image_for(self, request: Request) -> Any:
        """
        Return the cloud's image for a request, in the form that the create call takes.

        Raises:
            NoCapacity: The machine type cannot hold the image.
        """

    @abc.abstractmethod
    def deadline_at_boot(self, request: Request) -> str:
        """Return the shell code for the argument *until* of `user_data.user_data`."""

    @staticmethod
    def packer_source(base: str) -> dict[str, Any]:
        """
        Return the variable of a Packer template that names a base image.

        *base* is the name of the image, and its number if known; only the name is used.

        >>> [ServerProvider.packer_source(base) for base in ("debian-12 345", "345")]
        [{'source_image': 'debian-12'}, {'source_image': '345'}]
        """
        return {"source_image": base.partition(" ")[0]}

    def create(self, request: Request) -> Box:
        """
        Create the firewall and the box of a request; return the box.

        A box that exists already is returned as it is.
        """
        api, box, tags = self._api, request.box, request.tags
        found = api.servers("box", box)
        if found:
            return self._box(creation.only_one(api, request, found))
        self.destroy_token()
        image = self.image_for(request)
        script = user_data(request, notice="", until=self.deadline_at_boot(request))
        if len(script) > api.largest_user_data:
            raise ProviderError(f"user data of {len(script)} bytes is too large")
        key = self._prepare(request)
        try:
            server = creation.create(
                api,
                request,
                lambda: api.create_server(request, image, key, script.decode("ascii")),
            )
        except Unclear:
            raise
        except OneboxError:
            network.remove(api, tags, box)
            raise
        api.after_create(server)
        self._remove_stale(tags.owner)
        return self._box(server)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return this owner's boxes; a single list of the API covers all regions."""
        found: dict[str, Box] = {}
        for server in self._api.servers("owner", owner):
            box = self._read(server)
            if box is not None and box.tags.owner == owner:
                found.setdefault(box.id, box)
        return list(found.values())

    def get(self, box: str, place: str = "") -> Box | None:
        """Return the box, None if it does not exist or the API does not list it yet."""
        boxes = map(self._read, self._api.servers("box", box))
        return next((found for found in boxes if found is not None), None)

    def start(self, box: Box, deadline: float) -> Box:
        """Store the new deadline, and power the box on."""
        server = instances.owned(self._api, box)
        self._api.set_metadata(server, _stored(server).with_deadline(deadline))
        return self._box(power.start(self._api, server))

    def stop(self, box: Box) -> None:
        """Shut the box down and wait until it is off; it is still billed in full."""
        found = self._api.servers("box", box.id)
        instances.check_servers(found, box.tags, box.id)
        for server in found:
            power.stop(self._api, server)

    def delete(self, box: Box) -> None:
        """
        Delete this box and everything that belongs to it, and wait until it is gone.
        """
        deletion.delete(self._api, box)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return every object that still exists with the id of this box."""
        return deletion.leftovers(self._api, box)

    def free_objects(
        self, owner: str, gone: Collection[str] = (), *, everywhere: bool = False
    ) -> Sequence[FreeObject]:
        """Return the owner's firewalls and ssh keys, which cost nothing."""
        live = {box.id for box in self.find(owner)}
        return network.free_objects(self._api, owner, live, gone)

    def remove_free(self, owner: str, resource: FreeObject) -> None:
        """Delete a firewall or an ssh key of the owner, unless a box may need it."""
        if resource.kind not in (FIREWALL, SSH_KEY):
            super().remove_free(owner, resource)
        live = {box.id for box in self.find(owner)}
        network.remove_free(self._api, owner, resource.kind, resource.id, live)

    def set_host_key(self, box: Box, host_key: str) -> Box:
        """Record the box's new host key in its tags."""
        server = instances.owned(self._api, box)
        key = without_comment(host_key)
        stored = replace(_stored(server), host_key=key, bootstrap_key=False)
        self._api.set_metadata(server, stored)
        now = self._api.server(server)
        if now is None:
            raise Gone(f"box {box.id} does not exist any more")
        return self._box(now)

    def allow_my_ip(self, box: Box) -> bool:
        """
        Open ssh to the networks that may reach it now; return whether a rule changed.

        If these depend on this machine's address, the address is looked up again.
        """
        instances.owned(self._api, box)
        networks = self._access.networks(refresh=True)
        return network.ensure(self._api, box.tags, box.id, networks)

    def post_boot_script(self, box: Box) -> bytes:
        """
        Return the Python program that enables a new box to delete itself.

        The program holds a token, so it is sent over stdin of the verified connection.
        Return b"" if the user has set no token, and for a box that builds an image: its
        set-up needs root, which the program takes away.
        """
        if not self._settings.destroy_token or box.tags.kind != "box":
            return b""
        return self_destroy.post_boot_script(
            self.destroy_token(), self._api.servers_address, self._api.number_path
        )

    def destroy_token(self) -> str:
        """
        Return the token by which boxes delete themselves, "" if the user chose none.
        """
        return self.billed_off.token(self._settings, self._environ, self._api.token)

    def check_deadline(self) -> Check:
        """Return the line of `inv doctor` that tells what ends the billing of a box."""
        return self.billed_off.check(self._settings, self._environ, self._api.token)

    def _prepare(self, request: Request) -> Any:
        """
        Register the ssh key, create the firewall, and return the registered key.

        If a response is lost, this raises a ProviderError and not Unclear, because no
        server exists yet.
        """
        api, box, tags = self._api, request.box, request.tags
        try:
            key = api.ensure_ssh_key(tags.owner, without_comment(request.user_key))
            network.ensure(api, tags, box, self._access.networks())
        except Unclear as error:
            with suppress(ProviderError):
                network.remove(api, tags, box)
            raise ProviderError(
                f"there is no firewall for {box}, so the box was not created: "
                f"{error.message}",
                next="the same command again",
            ) from error
        return key

    def _remove_stale(self, owner: str) -> None:
        # A failure is ignored, because old firewalls are free of charge and the next
        # command tries again.
        with suppress(ProviderError):
            network.remove_stale(
                self._api, owner, lambda: {box.id for box in self.find(owner)}
            )

    def _box(self, server: Server) -> Box:
        box = self._read(server)
        if box is None:
            raise NotAllowed(f"{server.kind} {server.id} lacks the tags of its box")
        return box

    def _read(self, server: Server) -> Box | None:
        price = None if server.stored is None else server.stored.offer.machine_price
        stopped = self.billed_off.stopped_note(price)
        return instances.read_box(
            server, self._notes, stopped, self._settings.jump, self.clock()
        )


def _stored(server: Server) -> BoxMetadata:
    assert server.stored is not None  # its owner was checked
    return server.stored
