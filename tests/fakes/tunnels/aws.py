"""AWS's side of the tools: endpoints, security groups, and agents of SSM."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

from tests.fakes.aws.account import ARN, Account
from tests.fakes.tunnels.gateway import Query, Refused

_NO_INSTANCE = (
    "\nAn error occurred (InvalidInstanceID.NotFound) when calling the "
    "DescribeInstances operation: The instance ID '{}' does not exist"
)
_NOT_CONNECTED = (
    "\nAn error occurred (TargetNotConnected) when calling the StartSession operation: "
    "{} is not connected."
)
_DENIED = (
    "\nAn error occurred (AccessDeniedException) when calling the StartSession "
    f"operation: User: {ARN} is not authorized to perform: ssm:StartSession on "
    "resource: {} because no identity-based policy allows the ssm:StartSession action"
)


class Endpoints:
    """
    Leads a connection to an instance, as an endpoint or an agent of SSM does.

    Args:
        connect: Returns a connection to port 22 of an instance.

    Attributes:
        roles: Whether the instances have a role that lets SSM's agent register.
    """

    def __init__(
        self, account: Account, connect: Callable[[str], socket.socket]
    ) -> None:
        self.roles = True
        self._account = account
        self._connect = connect

    def lead(self, query: Query) -> socket.socket:
        """Return a connection to the instance. Raises Refused."""
        id, region = query["instance"], query["region"]
        with self._account.lock:
            self._account.tick()
            one = self._account.backend(region).get_instance_by_id(id)
            if query["tool"] == "ssm":
                self._check_session(one, query)
            else:
                self._check_endpoint(one, query)
        try:
            return self._connect(id)
        except (OSError, KeyError):
            if query["tool"] == "ssm":
                raise Refused(_NOT_CONNECTED.format(id), 254) from None
            raise Refused(
                "\nWebsocket Closure Reason: Unable to connect to target", 255
            ) from None

    def _check_session(self, one: Any, query: Query) -> None:
        id = query["instance"]
        if "ssm:StartSession" in self._account.faults.denied:
            raise Refused(_DENIED.format(id), 254)
        if query["document"] != "AWS-StartSSHSession" or query["port"] != 22:
            raise Refused(
                "\nAn error occurred (InvalidDocument) when calling the StartSession "
                f"operation: {query['document']} with port {query['port']}",
                254,
            )
        if one is None or one.state != "running" or not self.roles:
            raise Refused(_NOT_CONNECTED.format(id), 254)

    def _check_endpoint(self, one: Any, query: Query) -> None:
        id = query["instance"]
        if one is None:
            raise Refused(_NO_INSTANCE.format(id), 254)
        found = [
            endpoint
            for endpoint in self._account.endpoints
            if endpoint["VpcId"] == one.vpc_id
            and endpoint["State"] == "create-complete"
        ]
        if not found:
            raise Refused("\nThere are no available instance connect endpoints.", 252)
        if query["port"] != 22 or (
            "ec2-instance-connect:OpenTunnel" in self._account.faults.denied
        ):
            raise Refused(
                "\nAWS_ERROR_HTTP_WEBSOCKET_UPGRADE_FAILURE: Failed to upgrade HTTP "
                "connection to Websocket: AccessDenied",
                255,
            )
        if not admits(one, found[0]["SecurityGroupIds"]):
            raise Refused(
                "\nWebsocket Closure Reason: Unable to connect to target", 255
            )


def admits(instance: Any, groups: Iterable[str]) -> bool:
    """Return whether the rules of an instance admit ssh from one of these groups."""
    return any(
        ("tcp", 22, 22) == (rule.ip_protocol, int(rule.from_port), int(rule.to_port))
        and _group(rule) in set(groups)
        for own in instance.nics[0].group_set
        for rule in own.ingress_rules
    )


def _group(rule: Any) -> str:
    """Return the id of the group that a rule admits, "" if it admits none."""
    found = getattr(rule, "source_group", None) or {}
    return str(found.get("GroupId", ""))
