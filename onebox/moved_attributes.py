"""
Old paths of attributes that have moved out of BoxContext.

They keep the code of other packages working until it uses the new paths; then this
module is deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from onebox.providers.base import Box, Image
    from onebox.transfer.fetch_outputs import Fetched

T = TypeVar("T")


class _Moved(Generic[T]):
    """An attribute of BoxContext that now lives at *path* below it."""

    def __init__(self, path: str) -> None:
        self._holder, _, self._name = path.rpartition(".")

    def _of(self, context: Any) -> Any:
        return attrgetter(self._holder)(context) if self._holder else context

    def __get__(self, context: Any, owner: Any = None) -> T:
        value: T = getattr(self._of(context), self._name)
        return value

    def __set__(self, context: Any, value: T) -> None:
        setattr(self._of(context), self._name, value)


class MovedAttributes:
    """The old paths, each with its new one."""

    line = _Moved[Any]("invocation")
    done = _Moved[Any]("chain.results")
    ended = _Moved[Any]("chain.ended_boxes")
    begun = _Moved[Any]("chain.started_jobs")
    job_state = _Moved[Any]("chain.job_state")
    superseded = _Moved[Any]("chain.superseded")
    warned = _Moved[Any]("chain.warned")
    fetched: _Moved[Fetched | None] = _Moved("chain.fetched")
    fetched_into = _Moved[Any]("chain.fetched_into")
    fetched_earlier = _Moved[Any]("chain.fetched_earlier_job")
    pushed = _Moved[Any]("chain.pushed_digest")
    doing = _Moved[Any]("chain.stage")
    looked = _Moved[Any]("chain.files_checked")
    spent_before = _Moved[Any]("chain.spent_before")
    timed = _Moved[Any]("chain.timed")
    offers = _Moved[Any]("cache.offers")
    images: _Moved[list[Image] | None] = _Moved("cache.images")
    others = _Moved[Any]("boxes.preempted")
    builders = _Moved[Any]("boxes.builders")
    look_again = _Moved[Any]("boxes.refresh")
    forget_look = _Moved[Any]("boxes.invalidate")
    running_box: _Moved[Callable[[], Box]] = _Moved("boxes.running")
    siblings = _Moved[Any]("boxes.siblings")
    made_again = _Moved[Any]("boxes.set_current")
    provider_called = _Moved[Any]("load_provider")
    remember = _Moved[Any]("store.update")
