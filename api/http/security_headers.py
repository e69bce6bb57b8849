"""The headers that protect those who read an answer (ASVS 5.0, 3.4 and 14.3.2), on every answer."""

from api.http.headers import RawHeaders

SECURITY_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-site"),
    (b"cache-control", b"no-store"),
]
# Where the request came by HTTPS.
HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
