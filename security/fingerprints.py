"""Digests of what a client has sent, which tell nobody anything without the service's key: a plain hash of a
registration would be an oracle for the password in it."""

from hmac import digest


class Fingerprints:
    """HMAC-SHA-256 under a key of its own, which is derived from SECRET_KEY. While that one is replaced, what
    was made under the key before is known too."""

    def __init__(self, secret_key: str, *previous: str | None) -> None:
        secrets = [secret for secret in (secret_key, *previous) if secret]
        self.keys = [digest(secret.encode(), b"medisecure fingerprints", "sha256") for secret in secrets]

    def of(self, *parts: bytes) -> list[bytes]:
        """The digests of these parts, that under the current key first."""
        message = b"".join(len(part).to_bytes(8) + part for part in parts)
        return [digest(key, message, "sha256") for key in self.keys]
