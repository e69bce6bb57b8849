"""What is said if the server, or the driver, cannot do what the URL asks for."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import certifi
import pytest

from persistence.postgres.connector import Connector, NoConnectionError
from tests.support import documents

SELF_SIGNED = Path(documents.__file__).parents[1] / "data/self_signed.pem"
SSL_REQUEST_BYTES = 8
CLOSE_NOTIFY = b"\x15\x03\x03\x00\x02\x01\x00"  # TLS: nothing more comes
Serve = Callable[[socket.socket], None]


def speak_no_tls(client: socket.socket) -> None:
    client.sendall(b"N")


def vouch_for_itself(client: socket.socket) -> None:
    client.sendall(b"S")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)
    with suppress(ssl.SSLError, ConnectionError):  # the client hangs up
        context.wrap_socket(client, server_side=True)


def say_goodbye(client: socket.socket) -> None:
    """As a proxy does that stops."""
    client.sendall(b"S")
    client.recv(65536)
    client.sendall(CLOSE_NOTIFY)
    client.recv(65536)


@contextmanager
def served(serve: Serve) -> Iterator[int]:
    """A port at which one client is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(SSL_REQUEST_BYTES)
                serve(client)

        thread = Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (speak_no_tls, "it does not speak TLS, which sslmode asks for"),
        (vouch_for_itself, "self-signed certificate"),
    ],
)
def test_tls_that_cannot_be_set_up_is_a_lasting_reason(serve: Serve, reason: str) -> None:
    with served(serve) as port:
        url = f"postgresql://127.0.0.1:{port}/x?sslmode=verify-ca&sslrootcert={certifi.where()}"
        with pytest.raises(NoConnectionError, match=reason) as refused:
            asyncio.run(Connector(url, None)())
    assert refused.value.lasting


def test_a_url_that_asyncpg_does_not_support_is_a_lasting_reason() -> None:
    url = "postgresql://127.0.0.1:1/x?sslnegotiation=always"
    with pytest.raises(NoConnectionError, match="`sslnegotiation` parameter must be one of") as refused:
        asyncio.run(Connector(url, None)())
    assert refused.value.lasting


def test_a_handshake_that_is_cut_off_is_no_lasting_reason() -> None:
    with served(say_goodbye) as port, pytest.raises(OSError) as cut:  # noqa: PT011 - whichever
        asyncio.run(Connector(f"postgresql://127.0.0.1:{port}/x?sslmode=require", None)())
    assert not isinstance(cut.value, NoConnectionError)
