"""The address of this machine, if two services agree on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from onebox.errors import UsageError
from onebox.providers.kernel import public_ip

Serve = Callable[[str], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts a service with a text; "" is an error response."""
    servers, release = [], threading.Event()

    def start(text: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if text == "hang":
                    release.wait(30)
                    return
                self.send_response(200 if text else 500)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    release.set()
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "answers",
    [
        ["198.51.100.7", "198.51.100.7\n"],
        ["198.51.100.7", "", "198.51.100.7"],
        ["<html>", "198.51.100.7", "198.51.100.7"],
        ["203.0.113.1", "198.51.100.7", "198.51.100.7"],
    ],
)
def test_an_address_that_two_services_agree_on_is_returned(
    serve: Serve, answers: list[str]
) -> None:
    """The response of the third service does not matter."""
    assert public_ip.my_ip([serve(text) for text in answers]) == "198.51.100.7"


def test_a_service_that_does_not_respond_is_not_waited_for(serve: Serve) -> None:
    """Two equal responses are enough."""
    services = [serve("hang"), serve("198.51.100.7"), serve("198.51.100.7")]
    assert public_ip.my_ip(services, seconds=20) == "198.51.100.7"


@pytest.mark.parametrize(
    "answers",
    [
        ["198.51.100.7", "198.51.100.8"],
        ["198.51.100.7", ""],
        ["", ""],
        ["2001:db8::1", "2001:db8::1"],
        ["198.51.100.7/0", "198.51.100.7/0"],
    ],
)
def test_without_two_equal_addresses_the_user_must_set_one(
    serve: Serve, answers: list[str]
) -> None:
    """The error names the setting."""
    with pytest.raises(UsageError) as raised:
        public_ip.my_ip([serve(text) for text in answers])
    assert "ssh_cidr" in raised.value.next


def test_without_a_network_the_user_must_set_an_address() -> None:
    """No service can be reached."""
    with pytest.raises(UsageError):
        public_ip.my_ip(["http://127.0.0.1:9/", "http://127.0.0.1:9/"])


def test_all_services_use_tls() -> None:
    """There are more than one."""
    assert len(set(public_ip.SERVICES)) >= 2
    assert all(service.startswith("https://") for service in public_ip.SERVICES)
