"""Where a request comes from: the peer's address, or the one that trusted proxies name (X-Forwarded-For,
X-Forwarded-Proto).

uvicorn's own middleware does not recognize IPv4-mapped addresses: on a listener for both families an IPv4
peer is `::ffff:192.0.2.1`, which it does not find in `192.0.2.0/24`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID, uuid4

from api.http.addresses import parse_network
from api.http.headers import HttpScope, header_lines
from security.authentication import MAX_ADDRESS_LENGTH

# nginx's $request_id is one without hyphens.
REQUEST_ID = re.compile(r"[0-9a-f]{8}(-?)([0-9a-f]{4}\1){3}[0-9a-f]{12}", re.IGNORECASE)


@lru_cache(1024)
def normalize_address(text: str) -> str:
    """The canonical spelling of an address; an IPv4-mapped one becomes the IPv4 address (RFC 4291, 2.5.5.2).
    What is not an address is returned unchanged."""
    if len(text) > MAX_ADDRESS_LENGTH:
        return text
    try:
        address = ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def without_port(entry: str) -> str:
    """`192.0.2.1:5000` and `[2001:db8::1]:5000` are how some proxies write an entry."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, _, port = entry.partition(":")
    return host if port.isdigit() else entry


class TrustedProxies:
    """The proxies whose X-Forwarded- headers are believed."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self.networks = [ip_network(parse_network(text)) for text in trusted]
        self.trusts = lru_cache(1024)(self.is_trusted)

    def is_trusted(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in trusted for trusted in self.networks)

    def is_peer_trusted(self, scope: HttpScope) -> bool:
        """To be asked before apply_forwarded, which forgets the peer."""
        client = scope.get("client") if self.networks else None
        return client is not None and self.trusts(normalize_address(client[0]))

    def request_id_of(self, scope: HttpScope) -> UUID:
        """The one that a trusted proxy names, so that its log and ours can be laid side by side; otherwise a
        new one. As is_peer_trusted, to be asked before apply_forwarded."""
        if self.is_peer_trusted(scope):
            lines = header_lines(scope, b"x-request-id")
            if len(lines) == 1 and REQUEST_ID.fullmatch(lines[0]):
                return UUID(lines[0])
        return uuid4()

    def apply_forwarded(self, scope: HttpScope) -> None:
        """Put the client's address and the scheme into `scope`."""
        if not scope.get("client"):
            return
        host, port = scope["client"]
        host = normalize_address(host)
        if self.networks and self.trusts(host):
            schemes = header_lines(scope, b"x-forwarded-proto")
            if schemes and schemes[-1].strip() in {"http", "https"}:
                scope["scheme"] = schemes[-1].strip()
            host, port = self.find_client(",".join(header_lines(scope, b"x-forwarded-for"))) or host, 0
        scope["client"] = (host, port)

    def find_client(self, forwarded: str) -> str:
        """The client in X-Forwarded-For, to whose end each proxy appends the address it was called from. So
        the client is the last entry that is not a trusted proxy, or the first entry if all are. Entries
        before the client's may be forged by the client."""
        hosts = [normalize_address(without_port(entry.strip())) for entry in forwarded.split(",")]
        return next((host for host in reversed(hosts) if not self.trusts(host)), hosts[0])
