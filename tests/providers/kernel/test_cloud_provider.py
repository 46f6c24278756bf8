"""What the providers of all clouds have in common."""

from __future__ import annotations

from typing import cast

import pytest

from onebox.providers.aws.provider import AWS
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.gcp.provider import GCP
from onebox.providers.kernel.cloud_provider import CloudProvider, last_lines


@pytest.mark.parametrize(
    ("cloud", "place", "rate"),
    [
        (AWS, "eu-west-3b", 0.09),
        (AWS, "ap-south-1a", None),
        (GCP, "northamerica-northeast1-a", 0.12),
        (GCP, "asia-east1-b", None),
        (DigitalOcean, "fra1", 0.01),
    ],
)
def test_an_egress_rate_is_found_by_the_first_word_of_a_place(
    cloud: type[CloudProvider], place: str, rate: float | None
) -> None:
    """The rate of a part of the world that the table lacks is unknown."""
    # The method reads nothing but an attribute of the class.
    assert CloudProvider.egress_rate(cast(CloudProvider, cloud), place) == rate


def test_a_console_is_cut_to_its_last_lines() -> None:
    """The end of a boot shows why it failed, so the beginning is left out."""
    console = "\n".join(map(str, range(100)))
    assert last_lines(console).splitlines() == list(map(str, range(60, 100)))
