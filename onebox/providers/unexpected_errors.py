"""Turn the unexpected exceptions of a provider into errors that name the call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from onebox.errors import OneboxError, ProviderError
from onebox.providers.base import Provider


def guarded(provider: Provider) -> Provider:
    """Return a wrapper of *provider* whose calls raise only OneboxError and OSError."""
    return cast(Provider, _Guard(provider))


def unforeseen(provider: str, call: str, error: Exception) -> ProviderError:
    """Return the error for an unexpected exception in a call of a provider."""
    kind = type(error).__name__
    return ProviderError(
        f"provider {provider} failed at {call} with an unexpected error: "
        f"{kind}: {' '.join(str(error).split())[:300]}",
        next="the same command again, then inv doctor; inv --debug shows the traceback",
    )


class _Guard:
    """A wrapper of a provider that converts the unexpected exceptions of its calls."""

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
                # The caller reports these errors unchanged. An OSError is an error of
                # the operating system, such as a full disk.
                raise
            except Exception as error:
                raise unforeseen(self._guarded.name, name, error) from error

        return named
