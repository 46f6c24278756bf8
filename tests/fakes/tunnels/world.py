"""What must exist in a fake cloud before a tool can lead anywhere."""

from __future__ import annotations

import secrets

from tests.fakes.aws.account import Account


def add_endpoint(account: Account, region: str = "us-east-1") -> str:
    """Add an endpoint to the default VPC; return the id of its security group."""
    backend = account.backend(region)
    vpc = backend.default_vpc
    subnet = min(
        (one for zone in backend.subnets.values() for one in zone.values()),
        key=lambda one: str(one.availability_zone),
    )
    name = f"endpoint-{secrets.token_hex(4)}"
    group = backend.create_security_group(name, "an endpoint", vpc_id=vpc.id)
    account.endpoints.append(
        {
            "InstanceConnectEndpointId": f"eice-{secrets.token_hex(8)}",
            "State": "create-complete",
            "VpcId": vpc.id,
            "SubnetId": subnet.id,
            "AvailabilityZone": subnet.availability_zone,
            "SecurityGroupIds": [group.id],
            "PreserveClientIp": False,
        }
    )
    return str(group.id)
