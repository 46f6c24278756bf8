"""
Load Google's library: the parts in use, and while something else happens.

`google.cloud.compute_v1` imports more than a hundred services as soon as any of
them is wanted, which costs more than a second of CPU. So the package itself is
run only when somebody asks for a name in it (what Python 3.15 does by itself for
packages that ask for it, as this one does); its submodules are imported as usual.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from onebox.providers import with_bytecode

_PACKAGE = "google.cloud.compute_v1"
# What every command needs.
_FIRST = ("instances", "zone_operations")
_lock = threading.RLock()
_early: list[threading.Thread] = []


def require() -> None:
    """Raise ImportError if the library is not installed; imports none of it."""
    try:
        found = importlib.util.find_spec(_PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ImportError("not installed", name="google-cloud-compute")


def begin() -> None:
    """Start importing what every command needs, in a thread, once."""
    with _lock:
        if not _early:
            _early.append(threading.Thread(target=_begin, name="gcp", daemon=True))
            _early[0].start()


def _begin() -> None:
    # Whoever needs it next meets the same error, with somebody to tell.
    try:
        failures()
        for name in _FIRST:
            client(name)
    except ImportError:
        return


def client(service: str) -> Any:
    """Return the client class of one service, such as "zone_operations"."""
    module = _import(f"{_PACKAGE}.services.{service}")
    name = "".join(part.capitalize() for part in service.split("_"))
    return getattr(module, f"{name}Client")


def failures() -> tuple[type[Exception], ...]:
    """Return what a call raises when it fails; anything else is a mistake of ours."""
    return (
        _import("google.api_core.exceptions").GoogleAPIError,
        _import("google.auth.exceptions").GoogleAuthError,
        _import("requests.exceptions").RequestException,
        # An answer that is cut in the middle, or a gateway's page.
        _import("google.protobuf.json_format").ParseError,
    )


def auth() -> Any:
    """Return the module `google.auth`."""
    return _import("google.auth")


def session(credentials: Any) -> Any:
    """Return a session of `requests` that signs what it sends."""
    return _import("google.auth.transport.requests").AuthorizedSession(credentials)


def listen(client: Any, heard: Callable[[str | None], None]) -> None:
    """Have each answer's Date passed on; the library itself keeps no headers."""

    def hook(response: Any, *_: Any, **__: Any) -> None:
        heard(response.headers.get("Date"))

    # Generated clients have no public way to their session.
    session = getattr(client.transport, "_session", None)
    if session is not None:
        session.hooks["response"].append(hook)


def _import(name: str) -> Any:
    # Two threads that import each a part of what imports the other one get halves.
    if _early and _early[0] is not threading.current_thread():
        _early[0].join()
    with _lock, with_bytecode():
        if name in sys.modules:
            return sys.modules[name]
        collecting = gc.isenabled()
        # A million new objects, none of them garbage: a sixth of the time.
        gc.disable()
        try:
            # Not for users' eyes: which Pythons Google will support, and till when.
            warnings.filterwarnings("ignore", category=FutureWarning, module="google")
            _be_lazy()
            return importlib.import_module(name)
        finally:
            if collecting:
                gc.enable()


def _be_lazy() -> None:
    """Stand in for the package until somebody asks for a name in it."""
    if _PACKAGE in sys.modules or sys.version_info >= (3, 15):
        return
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.loader is None:
        raise ImportError("not installed", name="google-cloud-compute")
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def find(name: str) -> Any:
        if name.startswith("__") or _is_submodule(name):
            raise AttributeError(name)
        with _lock:
            module.__dict__.pop("__getattr__", None)
            loader.exec_module(module)
        return getattr(module, name)

    module.__dict__["__getattr__"] = find
    sys.modules[_PACKAGE] = module
    parent = importlib.import_module("google.cloud")
    parent.__dict__["compute_v1"] = module


def _is_submodule(name: str) -> bool:
    """Tell whether it is the import system that asks, for a module of the package."""
    package: ModuleType = sys.modules[_PACKAGE]
    return importlib.util.find_spec(f"{package.__name__}.{name}") is not None
