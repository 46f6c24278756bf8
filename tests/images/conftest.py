"""What the tests of images share."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest


@pytest.fixture(scope="session")
def index() -> None:
    """The package index, if it answers."""
    try:
        urllib.request.urlopen("https://pypi.org/simple/six/", timeout=20).close()
    except (urllib.error.URLError, OSError) as error:
        pytest.skip(f"no package index answers: {error}")
