"""HAProxy and nginx with the settings of deploy/, before instances at ports of this machine."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.external.proxies import start_server
from tests.external.running import ROOT, free_port

# How long they wait for a service that drains for five seconds, and for that of the tests: one second.
FASTER = {
    "inter 1s": "inter 200ms",
    "keepalive_timeout 3s": "keepalive_timeout 500ms",
}


NOTHING: Mapping[str, str] = {}


@contextmanager
def deployed_haproxy(
    folder: Path,
    service_ports: tuple[int, int],
    certificate: Path,
    *,
    port: int | None = None,
    others: Mapping[str, str] = NOTHING,
) -> Iterator[int]:
    """The port of its HTTPS; `certificate`: the chain, and before it the key; `others`: what else is changed
    in the file."""
    tls, plain = port or free_port(), free_port()
    changes = {
        **others,
        ":8443": f"127.0.0.1:{tls}",
        ":8080": f"127.0.0.1:{plain}",
        "/run/secrets/certificate.pem": str(certificate),
    }
    config = adapted("haproxy.cfg", folder, service_ports, changes)
    with start_server(folder / "proxy.log", tls, "haproxy", "-W", "-db", "-p", folder / "pid", "-f", config):
        yield tls


@contextmanager
def deployed_nginx(
    folder: Path,
    service_ports: tuple[int, int],
    certificate: Path,
    *,
    port: int | None = None,
    others: Mapping[str, str] = NOTHING,
) -> Iterator[int]:
    """The same of nginx."""
    tls, plain = port or free_port(), free_port()
    changes = {
        **others,
        "listen 443": f"listen 127.0.0.1:{tls}",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "/etc/nginx/tls/certificate.pem": str(certificate),
        "/etc/nginx/tls/key.pem": str(certificate),
        "/run/nginx.pid": str(folder / "pid"),
        "user www-data;": "user root; daemon off;",
    }
    config = adapted("nginx.conf", folder, service_ports, changes)
    with start_server(folder / "proxy.log", tls, "nginx", "-p", str(folder), "-c", config):
        yield tls


def reload(folder: Path) -> None:
    """Let the proxy of this folder read its file again, as an operator does: what is under way goes on."""
    number = signal.SIGHUP if (folder / "nginx.conf").exists() else signal.SIGUSR2
    os.kill(int((folder / "pid").read_text()), number)


def adapted(name: str, folder: Path, service_ports: tuple[int, int], changes: Mapping[str, str]) -> Path:
    """The file of deploy/ in this folder, with these changes; KeyError if it lacks what is to be changed."""
    text = (ROOT / "deploy" / name).read_text()
    instances = {
        f"{host}:8000": f"127.0.0.1:{port}" for host, port in zip(("one", "two"), service_ports, strict=True)
    }
    for old, new in (*changes.items(), *instances.items()):
        if old not in text:
            raise KeyError(f"{old} is not in deploy/{name}")
        text = text.replace(old, new)
    for old, new in FASTER.items():
        text = text.replace(old, new)
    config = folder / name
    config.write_text(text)
    return config
