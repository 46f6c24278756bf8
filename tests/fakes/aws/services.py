"""The handlers of the other AWS services: parameters, prices, quotas, identity."""

from __future__ import annotations

from typing import Any

from tests.fakes.aws import catalog
from tests.fakes.aws.account import ACCOUNT, ARN, Account
from tests.fakes.aws.instances import Handler
from tests.fakes.aws.schema import ApiRequest


def get_parameters(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> dict[str, Any]:
    """Return the public parameters that exist, and the names that do not."""
    known = catalog.parameters(request.region)
    names = parameters["Names"]
    return {
        "Parameters": [
            {"Name": name, "Type": "String", "Value": known[name]}
            for name in names
            if name in known
        ],
        "InvalidParameters": [name for name in names if name not in known],
    }


def get_products(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> dict[str, Any]:
    """Return rows of the price list; it is served in three regions only."""
    if request.region not in ("us-east-1", "eu-central-1", "ap-south-1"):
        raise AssertionError(f"there is no price list in {request.region}")
    rows = catalog.products(parameters["Filters"])
    return {"FormatVersion": "aws_v1", "PriceList": rows[: parameters["MaxResults"]]}


def get_service_quota(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> dict[str, Any]:
    """Return the quota of on-demand or spot vCPUs."""
    value = {
        "L-1216C47A": account.faults.cpus,
        "L-34B43A08": account.faults.spot_cpus,
    }[parameters["QuotaCode"]]
    return {"Quota": {"QuotaCode": parameters["QuotaCode"], "Value": value}}


def get_caller_identity(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> dict[str, Any]:
    """Return the identity of the credentials."""
    return {"UserId": "AIDATESTER", "Account": ACCOUNT, "Arn": ARN}


def describe_endpoints(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> dict[str, Any]:
    """Return the EC2 Instance Connect Endpoints that all filters select."""
    fields = {"vpc-id": "VpcId", "state": "State", "subnet-id": "SubnetId"}
    found = [
        one
        for one in account.endpoints
        if one["AvailabilityZone"].startswith(request.region)
        and all(
            one[fields[each["Name"]]] in each["Values"]
            for each in parameters.get("Filters", ())
        )
    ]
    return {"InstanceConnectEndpoints": found}


HANDLERS: dict[tuple[str, str], Handler] = {
    ("ec2", "DescribeInstanceConnectEndpoints"): describe_endpoints,
    ("ssm", "GetParameters"): get_parameters,
    ("pricing", "GetProducts"): get_products,
    ("service-quotas", "GetServiceQuota"): get_service_quota,
    ("sts", "GetCallerIdentity"): get_caller_identity,
}
