"""CORS_ORIGINS, TRUSTED_PROXIES, SECURITY_CONTACT: what is accepted, how it is kept, what a refusal says."""

import pytest

from tests.support.settings import read, refusal


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "https://*.clinic.example",
        "https://clinic.example/",
        "https://clinic.example/app",
        "clinic.example",
        "https://",
        "null",
        "file://clinic",
        "https://user@clinic.example",
        "https://a.example https://b.example",
        "https://a.example,*",
    ],
)
def test_origins_are_origins_and_never_a_wildcard(origins: str) -> None:
    message = refusal(CORS_ORIGINS=origins)
    assert message.startswith("CORS_ORIGINS must be origins such as https://clinic.example")


SPELLINGS = {
    "https://Clinic.Example": "https://clinic.example",
    "HTTPS://clinic.example:443": "https://clinic.example",
    "http://localhost:80": "http://localhost",
    "http://localhost:": "http://localhost",
    "http://localhost:0443": "http://localhost:443",
    "http://clinic.example:443": "http://clinic.example:443",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://BU\u0308CHER.example": "https://xn--bcher-kva.example",
    "https://straße.example": "https://xn--strae-oqa.example",
    "https://\uff43\uff4c\uff49\uff4e\uff49\uff43\u3002example": "https://clinic.example",
    "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
    "https://clinic.example.": "https://clinic.example.",
    "http://my_host:3000": "http://my_host:3000",
    "http://127.1:5173": "http://127.0.0.1:5173",
    "http://0x7f000001": "http://127.0.0.1",
    "http://[0:0::1]:5173": "http://[::1]:5173",
    "http://[2001:DB8:0:0:1:0:0:1]": "http://[2001:db8::1:0:0:1]",
    "http://[10:0:0:2:0:0:0:3]": "http://[10:0:0:2::3]",
    "http://[10:0:1:2:3:4:5:6]": "http://[10:0:1:2:3:4:5:6]",
    "http://[::FFFF:127.0.0.1]:80": "http://[::ffff:7f00:1]",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_an_origin_is_kept_as_a_browser_writes_it(text: str) -> None:
    """tests/external/test_guide.py asks the browser."""
    assert read(CORS_ORIGINS=f"{text}, {SPELLINGS[text]}").cors_origins == (SPELLINGS[text],)


NO_HOST = "after :// comes a host, and a port where it is not the scheme's own"
NO_NAME = "a host is a name of letters, digits, dots and hyphens, or an IP address"
NO_SCHEME = "each begins with http:// or https://"
NO_IDNA = "a name beyond ASCII is written as the address bar copies it, xn--…"
WITHOUT_A_PATH = "a browser sends https://clinic.example, without a path"
NO_ORIGINS = {
    "https://Clinic.example/": WITHOUT_A_PATH,
    "https://clinic.example/app": WITHOUT_A_PATH,
    "https://clinic.example?app": WITHOUT_A_PATH,
    "https://clinic.example#app": WITHOUT_A_PATH,
    "https://clinic.example\\app": WITHOUT_A_PATH,
    "null": NO_SCHEME,
    "clinic.example": NO_SCHEME,
    "file://clinic": NO_SCHEME,
    "https:/clinic.example": NO_SCHEME,
    "https://user:hush-hush@clinic.example": "an origin has neither user name nor password",
    "https://a.example https://b.example": "an origin has no blanks in it",
    "https://*.clinic.example": "a wildcard cannot go with cookies",
    "http://localhost:*": "a wildcard cannot go with cookies",
    "http://clinic.example:0": "no browser opens a page at port 0",
    "http://clinic.example:6000": "no browser opens a page at port 6000",
    "http://clinic.example:99999": "no browser opens a page at port 99999",
    "http://clinic.example:\uff18\uff10": NO_HOST,
    "http://:80": NO_HOST,
    "http://[::1": NO_HOST,
    "http://[fe80::1%eth0]": "write fe80::1, without the zone behind %",
    "http://1.2.3.256": "1.2.3.256 is no IPv4 address",
    "https://clinic..example": NO_NAME,
    "https://cl%69nic.example": NO_NAME,
    f"https://{'a' * 64}.example": NO_NAME,
    "https://\u2603.example": NO_IDNA,
    "https://xn--abc-.example": NO_IDNA,
    "https://xn--a.example": NO_IDNA,  # punycode, of a control character
}


@pytest.mark.parametrize("url", ["https://clinic.example/app", "clinic.example", "https://*.clinic.example"])
def test_a_public_url_is_an_origin_with_or_without_a_slash(url: str) -> None:
    refused = refusal(PUBLIC_URL=url)
    assert refused == f"PUBLIC_URL must be an origin such as https://clinic.example; {NO_ORIGINS[url]}"
    assert read(PUBLIC_URL="https://Clinic.Example/").public_url == "https://clinic.example"


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_an_origin_that_no_browser_sends_is_refused_with_what_to_write(text: str) -> None:
    rule = "origins such as https://clinic.example, separated by commas"
    refused = refusal(CORS_ORIGINS=f"https://a.example,{text}")
    assert refused == f"CORS_ORIGINS must be {rule}; {NO_ORIGINS[text]}"


@pytest.mark.parametrize("proxies", ["*", "proxy.example", "10.0.0.1/33", "10.0.0.1;10.0.0.2", "010.0.0.1"])
def test_trusted_proxies_are_addresses_or_networks(proxies: str) -> None:
    assert refusal(TRUSTED_PROXIES=proxies) == (
        "TRUSTED_PROXIES must be IP addresses or networks, separated by commas"
    )


@pytest.mark.parametrize(
    ("proxies", "meant"),
    [
        ("172.18.0.1/16", "write 172.18.0.0/16 for the network, or 172.18.0.1 for the one address"),
        ("2001:db8::1/32", "write 2001:db8::/32 for the network, or 2001:db8::1 for the one address"),
        ("::ffff:10.0.0.1/104", "write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address"),
        ("fe80::1%eth0", "write fe80::1, without the zone behind %"),
        ("0.0.0.0/32", "nothing is sent from 0.0.0.0/32; write the address of the proxy or its network"),
        ("::/128", "nothing is sent from ::/128; write the address of the proxy or its network"),
        ("224.0.0.1", "nothing is sent from 224.0.0.1; write the address of the proxy or its network"),
    ],
)
def test_a_proxy_that_would_never_match_is_refused_with_what_was_meant(proxies: str, meant: str) -> None:
    """uvicorn takes such a text for a name, which no address equals."""
    message = refusal(TRUSTED_PROXIES=f"192.0.2.1,{proxies}")
    assert message.startswith("TRUSTED_PROXIES must be IP addresses or networks")
    assert message.endswith(meant)


def test_a_proxy_is_kept_as_its_packets_show_it() -> None:
    settings = read(
        TRUSTED_PROXIES="::ffff:10.0.0.1,::ffff:10.0.0.0/104,10.0.0.0/255.0.0.0,2001:DB8:0::/32,192.0.2.1/32"
    )
    assert settings.trusted_proxies == ("10.0.0.1", "10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32")


@pytest.mark.parametrize(
    "contact",
    [
        "mailto:",
        "mailto:security",
        "mailto:a b@clinic.example",
        "mailto:a@clinic.example\nExpires: never",
        "mailto:sécurité@clinic.example",
        "https://",
        "https:///security",
        "tel:",
        "tel:call me",
        "a@clinic.example",
        "http://clinic.example",
    ],
)
def test_a_security_contact_that_cannot_be_reached_is_refused(contact: str) -> None:
    assert refusal(SECURITY_CONTACT=contact) == (
        "SECURITY_CONTACT must be a mailto:, https: or tel: URI (RFC 9116, 2.5.3), "
        "such as mailto:security@clinic.example"
    )


@pytest.mark.parametrize(
    "contact",
    [
        "mailto:security%2Bmedisecure@clinic.example?subject=found",
        "https://clinic.example/security#contact",
        "https://[2001:db8::1]:8443",
        "tel:+1-201-555-0123",
    ],
)
def test_a_security_contact_is_a_mail_web_or_telephone_uri(contact: str) -> None:
    assert read(SECURITY_CONTACT=contact).security_contact == contact
