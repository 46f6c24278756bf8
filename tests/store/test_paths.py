"""The directories for state, configuration and local boxes."""

from __future__ import annotations

import pytest

from onebox.store.paths import config_dir, local_root, state_dir


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"HOME": "/h"},
            (
                "/h/.local/state/onebox",
                "/h/.config/onebox",
                "/h/.local/share/onebox/local",
            ),
        ),
        (
            {
                "HOME": "/h",
                "XDG_STATE_HOME": "/s",
                "XDG_CONFIG_HOME": "/c",
                "XDG_DATA_HOME": "/d",
            },
            ("/s/onebox", "/c/onebox", "/d/onebox/local"),
        ),
        (
            {
                "XDG_STATE_HOME": "/s",
                "ONEBOX_STATE": "/a",
                "ONEBOX_IDENTITY": "/b",
                "ONEBOX_LOCAL_ROOT": "/c",
            },
            ("/a", "/b", "/c"),
        ),
    ],
)
def test_oneboxs_variables_precede_xdg_and_home(
    environ: dict[str, str], expected: tuple[str, ...]
) -> None:
    """onebox's own variables come first, then XDG's, then the home directory."""
    found = (state_dir(environ), config_dir(environ), local_root(environ))

    assert expected == tuple(map(str, found))
