"""Old names of `create`, `delete` and `replay_journal`, until their users move."""

from __future__ import annotations

from onebox.boxes.create import adopt, create
from onebox.boxes.delete import delete as remove
from onebox.boxes.delete import remove_free
from onebox.boxes.delete import remove_unused as tidy
from onebox.boxes.delete import wait_until_gone as see_gone
from onebox.boxes.replay_journal import replay as recover

__all__ = ["adopt", "create", "recover", "remove", "remove_free", "see_gone", "tidy"]
