"""Name what fails in a provider in a way that nobody has foreseen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from onebox.errors import OneboxError, ProviderError
from onebox.providers.base import Provider


def guarded(provider: Provider) -> Provider:
    """Return a provider whose every failure is an `OneboxError`, or the system's."""
    return cast(Provider, _Guard(provider))


def unforeseen(provider: str, call: str, error: Exception) -> ProviderError:
    """Return the error that says which call of which provider has failed, and how."""
    kind = type(error).__name__
    return ProviderError(
        f"provider {provider} failed at {call} in a way that onebox does not know: "
        f"{kind}: {' '.join(str(error).split())[:300]}",
        next="the same command again, then inv doctor; inv --debug shows where it was",
    )


class _Guard:
    """The provider itself, in all but what its calls may raise."""

    def __init__(self, provider: Provider) -> None:
        self._guarded = provider

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._guarded, name)
        return self._named(name, found) if callable(found) else found

    def _named(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def named(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            except (OneboxError, OSError):
                # What the system refuses (a full disk) is told of as that.
                raise
            except Exception as error:
                raise unforeseen(self._guarded.name, name, error) from error

        return named
