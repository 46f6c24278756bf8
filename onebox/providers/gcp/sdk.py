"""
Import only the needed parts of Google's library, in the background.

Importing `google.cloud.compute_v1` imports more than a hundred services, which takes
more than a second of CPU time. So this module does not run the code of the package
itself until a name in the package is used. The package's submodules are imported as
usual. Python 3.15 delays imports by itself for packages that request it, as this one
does.
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
# Every command needs these services.
_FIRST = ("instances", "zone_operations")
_lock = threading.RLock()
_early: list[threading.Thread] = []


def require() -> None:
    """Raise ImportError if the library is not installed, without importing it."""
    try:
        found = importlib.util.find_spec(_PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ImportError("not installed", name="google-cloud-compute")


def begin() -> None:
    """Start to import the services that every command needs, in one thread."""
    with _lock:
        if not _early:
            _early.append(threading.Thread(target=_begin, name="gcp", daemon=True))
            _early[0].start()


def _begin() -> None:
    # An ImportError is ignored here. The first call of the API raises it again, where
    # it can be reported.
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
    """
    Return the exceptions that a failed call may raise; any other is a bug in onebox.
    """
    return (
        _import("google.api_core.exceptions").GoogleAPIError,
        _import("google.auth.exceptions").GoogleAuthError,
        _import("requests.exceptions").RequestException,
        # The library raises ParseError if the response was cut off, or is the HTML page
        # of a gateway.
        _import("google.protobuf.json_format").ParseError,
    )


def auth() -> Any:
    """Return the module `google.auth`."""
    return _import("google.auth")


def session(credentials: Any) -> Any:
    """
    Return a session of `requests` that authenticates its requests.

    If the credentials can sign their own tokens, they do so.
    """
    signing = getattr(credentials, "with_always_use_jwt_access", None)
    credentials = signing(True) if signing else credentials
    return _import("google.auth.transport.requests").AuthorizedSession(credentials)


def listen(client: Any, correct: Callable[[str | None], None]) -> None:
    """
    Call *correct* with the Date header of each response.

    The library itself does not return the headers of a response.
    """

    def hook(response: Any, *_: Any, **__: Any) -> None:
        correct(response.headers.get("Date"))

    # A private attribute is read, because the generated clients have no public
    # attribute for their session.
    session = getattr(client.transport, "_session", None)
    if session is not None:
        session.hooks["response"].append(hook)


def _import(name: str) -> Any:
    # Imports in two threads could see incomplete modules, because Google's modules
    # import each other. So this thread waits for the background import.
    if _early and _early[0] is not threading.current_thread():
        _early[0].join()
    with _lock, with_bytecode():
        if name in sys.modules:
            return sys.modules[name]
        collecting = gc.isenabled()
        # The import creates a million objects and no garbage. Garbage collection would
        # take a sixth of its time, so it is switched off.
        gc.disable()
        try:
            # Google's library warns about Python versions that it will no longer
            # support. These warnings are hidden from the user.
            warnings.filterwarnings("ignore", category=FutureWarning, module="google")
            _be_lazy()
            return importlib.import_module(name)
        finally:
            if collecting:
                gc.enable()


def _be_lazy() -> None:
    """Replace the package by a module that runs the package's code at its first use."""
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
    """
    Return whether the package has a submodule of this name.

    The import system finds submodules by itself, so a submodule can be used without
    running the package's code.
    """
    package: ModuleType = sys.modules[_PACKAGE]
    return importlib.util.find_spec(f"{package.__name__}.{name}") is not None
