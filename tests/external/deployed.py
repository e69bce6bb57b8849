"""HAProxy and nginx with the settings of deploy/, before instances at ports of this machine."""

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


@contextmanager
def deployed_haproxy(folder: Path, service_ports: tuple[int, int], certificate: Path) -> Iterator[int]:
    """The port of its HTTPS; `certificate`: the chain, and before it the key."""
    tls, plain = free_port(), free_port()
    changes = {
        ":8443": f"127.0.0.1:{tls}",
        ":8080": f"127.0.0.1:{plain}",
        "/run/secrets/certificate.pem": str(certificate),
    }
    config = adapted("haproxy.cfg", folder, service_ports, changes)
    with start_server(folder / "proxy.log", tls, "haproxy", "-db", "-f", config):
        yield tls


@contextmanager
def deployed_nginx(folder: Path, service_ports: tuple[int, int], certificate: Path) -> Iterator[int]:
    """The port of its HTTPS."""
    tls, plain = free_port(), free_port()
    changes = {
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
