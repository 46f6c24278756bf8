"""The lazy import of Google's library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onebox import providers
from onebox.providers.gcp.sdk import require

ROOT = Path(__file__).parents[3]


def run(code: str) -> Any:
    """Run code in a new Python process; return its output, parsed as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        cwd=ROOT,
        timeout=120,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_sdk_is_not_imported_before_it_is_used() -> None:
    """Listing the providers imports nothing of Google's."""
    loaded = run(
        "import json, sys; import onebox.providers.gcp.provider; "
        "print(json.dumps([m for m in sys.modules if m.startswith('google.')]))"
    )
    assert set(loaded) <= {"google.cloud", "google.api_core", "google.cloud.compute_v1"}
    assert "google.cloud.compute_v1" not in loaded


@pytest.fixture(scope="module")
def lazy_import() -> dict[str, Any]:
    """The services and the number of modules that onebox's import has loaded."""
    found = run(
        "import json, sys\n"
        "import onebox\n"
        "before = len(sys.modules)\n"
        "from onebox.providers.gcp import sdk\n"
        "sdk.failures(), sdk.client('instances'), sdk.client('zone_operations')\n"
        "modules = len(sys.modules) - before\n"
        "start = 'google.cloud.compute_v1.services.'\n"
        "names = {m[len(start):].split('.')[0] for m in sys.modules "
        "if m.startswith(start)}\n"
        "print(json.dumps(dict(services=sorted(names), modules=modules)))"
    )
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def full_import() -> dict[str, Any]:
    """The number of modules of the plain import, and whether onebox reuses it."""
    found = run(
        "import json, sys\n"
        "import onebox\n"
        "before = len(sys.modules)\n"
        "from google.cloud import compute_v1\n"
        "modules = len(sys.modules) - before\n"
        "from onebox.providers.gcp import sdk\n"
        "sdk.begin()\n"
        "same = sdk.client('instances') is compute_v1.InstancesClient\n"
        "print(json.dumps(dict(same=same, modules=modules)))"
    )
    assert isinstance(found, dict)
    return found


def test_only_the_used_services_are_imported(lazy_import: dict[str, Any]) -> None:
    """The library has more than a hundred."""
    assert lazy_import["services"] == ["instances", "zone_operations"]


def test_a_library_that_is_imported_already_is_used(
    full_import: dict[str, Any],
) -> None:
    """It is not loaded again."""
    assert full_import["same"] is True


def test_the_import_loads_fewer_modules_than_the_whole_library(
    lazy_import: dict[str, Any], full_import: dict[str, Any]
) -> None:
    """Only the needed services are loaded."""
    assert lazy_import["modules"] < 0.75 * full_import["modules"]


def test_other_users_of_the_library_find_all_of_it() -> None:
    """The lazy package is complete."""
    found = run(
        "import json\n"
        "from onebox.providers.gcp import sdk\n"
        "mine = sdk.client('instances')\n"
        "from google.cloud import compute_v1\n"
        "from google.cloud.compute_v1 import RoutersClient, Instance\n"
        "same = compute_v1.InstancesClient is mine\n"
        "missing = hasattr(compute_v1, 'NoSuchThing')\n"
        "print(json.dumps([same, missing, RoutersClient.__name__, "
        "len(compute_v1.__all__) > 1000]))"
    )
    assert found == [True, False, "RoutersClient", True]


def test_two_threads_import_the_same_modules() -> None:
    """Neither sees a half-imported one."""
    found = run(
        "import json, threading\n"
        "from onebox.providers.gcp import sdk\n"
        "got = []\n"
        "sdk.begin()\n"
        "def use(): got.append([sdk.client(n).__name__ for n in ('disks', 'images')])\n"
        "threads = [threading.Thread(target=use) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(json.dumps([len(got), got[0], len(sdk.failures())]))"
    )
    assert found == [4, ["DisksClient", "ImagesClient"], 4]


def test_a_missing_library_has_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ImportError names it."""
    monkeypatch.setitem(sys.modules, "google.cloud.compute_v1", None)
    with pytest.raises(ImportError) as caught:
        require()
    assert caught.value.name == "google-cloud-compute"
    assert "onebox[gcp]" in providers.PROVIDERS["gcp"].missing_sdk
