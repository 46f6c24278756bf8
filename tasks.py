"""onebox's own use of itself: `inv run` runs the example job of onebox.toml."""

from onebox import *  # noqa: F403 - the tasks are the file
