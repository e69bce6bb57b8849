"""Addresses in the spelling that others use: an origin as browsers send it, a proxy's network as its packets
show it."""

import re
import socket
from ipaddress import IPv4Network, IPv6Address, ip_interface

import idna

DEFAULT_PORTS = {"http": 80, "https": 443}
# The Fetch standard's bad ports: no browser opens a page there, so no page of such an origin exists.
BLOCKED_PORTS = {
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
    104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513,
    514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720,
    1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
}  # fmt: skip
HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{0,9}))?")
HOST_NAME = re.compile(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def parse_origin(text: str) -> str:
    """`text` as a browser sends it in `Origin` (URL standard, 3.5 and 4.5): in lower case, without the
    default port, a name in IDNA, an address in its canonical spelling. Raises ValueError, with the reason, if
    no browser sends it. The reason repeats neither user name nor password."""
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if "*" in text:
        raise ValueError("a wildcard cannot go with cookies")
    if scheme not in DEFAULT_PORTS or not separator:
        raise ValueError("each begins with http:// or https://")
    if "@" in rest:
        raise ValueError("an origin has neither user name nor password")
    if re.search(r"\s", rest):
        raise ValueError("an origin has no blanks in it")
    if path := re.search(r"[/?#\\]", rest):
        raise ValueError(
            f"a browser sends {parse_origin(text[: -len(rest)] + rest[: path.start()])}, without a path"
        )
    matched = HOST_AND_PORT.fullmatch(rest)
    if not matched or not matched[1]:
        raise ValueError("after :// comes a host, and a port where it is not the scheme's own")
    port = int(matched[2] or DEFAULT_PORTS[scheme])
    if port > 65535 or port in BLOCKED_PORTS:
        raise ValueError(f"no browser opens a page at port {port}")
    suffix = "" if port == DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{parse_host(matched[1])}{suffix}"


def parse_host(text: str) -> str:
    if text.startswith("["):
        return f"[{format_ipv6(IPv6Address(without_zone(text[1:-1])))}]"
    try:
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode()
        for label in name.split("."):
            require_decodable(label)
    except UnicodeError:
        raise ValueError("a name beyond ASCII is written as the address bar copies it, xn--…") from None
    if not HOST_NAME.fullmatch(name) or len(name) > 254:
        raise ValueError("a host is a name of letters, digits, dots and hyphens, or an IP address")
    if NUMBER.fullmatch(name.removesuffix(".").rpartition(".")[2]):
        try:
            return socket.inet_ntoa(socket.inet_aton(name.removesuffix(".")))
        except OSError:
            raise ValueError(f"{name} is no IPv4 address") from None
    return name


def require_decodable(label: str) -> None:
    """Raise UnicodeError for a label that claims to be punycode and is not, or that decodes to what no name
    may hold."""
    if label.startswith("xn--"):
        name = label[4:].encode().decode("punycode")
        if name.isascii() or idna.uts46_remap(name, std3_rules=False) != name:
            raise UnicodeError


def format_ipv6(address: IPv6Address) -> str:
    """The URL standard's IPv6 serializer. Python writes an IPv4-mapped address in another way since 3.13."""
    text = ":".join(f"{int(piece, 16):x}" for piece in address.exploded.split(":"))
    runs = re.finditer(r"(?<![^:])0(?::0)+(?![^:])", text)
    zeros = max(runs, key=lambda run: len(run[0]), default=None)  # of equally long ones the first
    if zeros is None:
        return text
    before, after = text[: zeros.start()], text[zeros.end() :]
    return f"{before.removesuffix(':')}::{after.removeprefix(':')}"


def without_zone(text: str) -> str:
    """The same address; ValueError if it has a zone, which neither browsers nor packets name."""
    address, zone, _ = text.partition("%")
    if zone:
        raise ValueError(f"write {address}, without the zone behind %")
    return address


def parse_network(text: str) -> str:
    """An address or a network as its packets show it: IPv4 instead of IPv4-mapped. Raises ValueError if no
    packet comes from there; the message says what was probably meant."""
    bare = without_zone(text)
    try:
        interface = ip_interface(bare)
    except ValueError:
        raise ValueError from None
    address, whole = interface.ip, interface.network
    if isinstance(address, IPv6Address) and address.ipv4_mapped and whole.prefixlen >= 96:
        address = address.ipv4_mapped
        whole = IPv4Network((address, whole.prefixlen - 96), strict=False)
    if whole.num_addresses == 1 and (address.is_unspecified or address.is_multicast):
        raise ValueError(f"nothing is sent from {text}; write the address of the proxy or its network")
    if address != whole.network_address:
        raise ValueError(
            f"{text} is an address within a network; write {whole} for the network, "
            f"or {address} for the one address"
        )
    return str(whole if "/" in text else address)
