"""HAProxy and nginx as operators put them before the service: started from a folder, on a free port."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.external.running import SHUTDOWN_SECONDS, STARTUP_SECONDS, free_port

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 60s
    option forwardfor
frontend callers
    bind 127.0.0.1:{port}
    http-request deny if {{ path_beg /api/users }}
    default_backend service
backend service
    http-reuse always
    server one 127.0.0.1:{upstream}
"""
NGINX = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream service {{ server 127.0.0.1:{upstream}; keepalive 8; keepalive_timeout 1s; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
        location /api/users {{ return 403; }}
    }}
}}
"""


@contextmanager
def start_haproxy(folder: Path, service: str) -> Iterator[int]:
    """Its port. It denies /api/users by path, and names callers in X-Forwarded-For."""
    with start_proxy(folder, HAPROXY, service, "haproxy", "-db", "-f") as port:
        yield port


@contextmanager
def start_nginx(folder: Path, service: str) -> Iterator[int]:
    """The same, not waiting for whole bodies; it keeps idle connections to the service for a second."""
    with start_proxy(folder, NGINX, service, "nginx", "-p", str(folder), "-c") as port:
        yield port


@contextmanager
def start_proxy(folder: Path, template: str, service: str, *command: str) -> Iterator[int]:
    port, config, log = free_port(), folder / "proxy.conf", folder / "proxy.log"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        template.format(port=port, upstream=service.rpartition(":")[2], folder=folder, user=user)
    )
    with start_server(log, port, *command, config):
        yield port


@contextmanager
def start_server(log: Path, port: int, *command: str | Path, host: str = "127.0.0.1") -> Iterator[None]:
    """Run a server, from when it listens on `port`."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not is_listening(port, host):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(SHUTDOWN_SECONDS)


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
