"""
Reach boxes through the AWS CLI: by an EC2 Instance Connect Endpoint, or by SSM.

An endpoint connects to port 22 of the instance from within the VPC. The instance needs
no agent and no role. SSM's agent on the instance connects to AWS itself, so no inbound
rule is needed at all, but the agent needs a role that lets it register.

The commands are those of the AWS CLI's reference: `ec2-instance-connect open-tunnel`
and `ssm start-session`, the latter with the document AWS-StartSSHSession.
"""

from __future__ import annotations

from onebox.errors import UsageError
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.aws.metadata import filters
from onebox.providers.kernel.reach import Tool, is_name, name
from onebox.providers.values import Proxy

ENDPOINT, SSM = "eice", "ssm"
_VARIABLES = ("AWS_",)
_CLI = "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
_PLUGIN = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html"
)
_INSTALL = f"install the AWS CLI, version 2.12 or newer: {_CLI}"
_AWS = Tool("aws", _INSTALL, ("--version",), r"aws-cli/(\d+)\.(\d+)", (), _VARIABLES)
# The command open-tunnel exists since this version.
_AWS_2 = Tool(
    "aws", _INSTALL, ("--version",), r"aws-cli/(\d+)\.(\d+)", (2, 12), _VARIABLES
)
_SESSIONS = Tool(
    "session-manager-plugin",
    f"install the Session Manager plugin: {_PLUGIN}",
    ("--version",),
    r"(\d+)\.(\d+)\.(\d+)",
)
TOOLS = {"": (), ENDPOINT: (_AWS_2,), SSM: (_AWS, _SESSIONS)}
# Messages of the AWS CLI for which it does not help to wait until the box has booted.
_REFUSALS = (
    r"AccessDenied|UnauthorizedOperation|not authorized|available instance connect "
    r"endpoints|Unable to locate credentials|Expired|InvalidClientTokenId|"
    r"UnrecognizedClient|SignatureDoesNotMatch|AuthFailure|SSO|config profile|"
    r"Invalid choice|Unknown options|SessionManagerPlugin is not found|InvalidDocument"
)
# The AWS CLI uses an endpoint in any of these states.
_USABLE = ("create-complete", "update-in-progress", "update-failed", "update-complete")


def proxy(way: str, instance: str, region: str, profile: str) -> Proxy | None:
    """
    Return the command that leads to an instance, None if ssh connects directly.

    Args:
        way: The value of `reach` with which the box was created.

        profile: The user's AWS profile, "" if the credentials do not come from one.
    """
    target, place = name(instance), ("--region", name(region))
    words: tuple[str, ...]
    if way == ENDPOINT:
        words = ("ec2-instance-connect", "open-tunnel", "--instance-id", target)
        words += ("--remote-port", "22", *place)
    elif way == SSM:
        document = ("--document-name", "AWS-StartSSHSession")
        words = ("ssm", "start-session", "--target", target, *document)
        words += ("--parameters", "portNumber=22", *place)
    else:
        return None
    # Without it, the tool takes the profile from the same variable as onebox.
    if is_name(profile):
        words += ("--profile", profile)
    return Proxy(("aws", *words), _VARIABLES, _REFUSALS, _INSTALL)


def endpoints(ec2: EC2, vpc: str) -> list[Answer]:
    """Return the endpoints of a VPC that the AWS CLI would use."""
    return ec2.pages(
        "describe_instance_connect_endpoints",
        "InstanceConnectEndpoints",
        Filters=filters({"vpc-id": [vpc], "state": _USABLE}),
    )


def endpoint_groups(ec2: EC2, vpc: str, subnet: str) -> list[str]:
    """
    Return the security groups of the endpoints of a VPC.

    Raises:
        UsageError: The VPC has no endpoint.
    """
    found = endpoints(ec2, vpc)
    if not found:
        raise UsageError(
            f"{vpc} in {ec2.region} has no EC2 Instance Connect Endpoint, which "
            f'reach = "{ENDPOINT}" needs',
            next="aws ec2 create-instance-connect-endpoint "
            f"--region {ec2.region} --subnet-id {subnet}",
        )
    return sorted({str(id) for one in found for id in one.get("SecurityGroupIds", ())})
