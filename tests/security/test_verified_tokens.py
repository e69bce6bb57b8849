"""Tokens that were verified are remembered (security/tokens.py:TokenIssuer)."""

import time
from datetime import timedelta
from uuid import uuid4

import pytest

from security.roles import Caller, Role
from security.tokens import MAX_VERIFIED, TokenIssuer, TokenKind
from tests.support.factories import World
from tests.support.service import KEY, Service
from tests.support.tokens import claims, signed


class TestVerifiedTokens:
    """The signature of a token is verified once, its times at every request."""

    @pytest.fixture
    def issuer(self) -> TokenIssuer:
        return TokenIssuer(KEY, "HS256", timedelta(minutes=15))

    @staticmethod
    def access_of(issuer: TokenIssuer) -> str:
        return issuer.issue_access(Caller(uuid4(), "a@b.example", Role.STAFF, uuid4()))

    @pytest.mark.parametrize(
        ("seconds", "good"),
        [(0, True), (890, True), (901, False), (10**6, False), (-110, True), (-130, False)],
    )
    def test_a_verified_token_is_checked_against_the_clock_each_time(
        self, issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch, seconds: int, good: bool
    ) -> None:
        """Set forward, it has expired; set back by more than another server's clock may be, it is not issued
        yet. Set right again, it is good."""
        token = self.access_of(issuer)
        assert issuer.read(token, TokenKind.ACCESS)
        with monkeypatch.context() as patch:
            patch.setattr("security.clock.time", lambda: time.time() + seconds)
            assert bool(issuer.read(token, TokenKind.ACCESS)) is good
        assert issuer.read(token, TokenKind.ACCESS)

    @pytest.mark.slow
    def test_a_verified_token_expires(self, service: Service, world: World) -> None:
        access, expires = world.patient.cookies["access_token"], int(time.time()) + 3
        brief = signed({**claims(access), "exp": expires})
        assert service.browser({"access_token": brief}).get("/api/users/me").status_code == 200
        while time.time() <= expires:
            time.sleep(0.1)
        assert service.browser({"access_token": brief}).get("/api/users/me").status_code == 401

    def test_a_verified_access_token_is_no_refresh_token(self, issuer: TokenIssuer) -> None:
        token = self.access_of(issuer)
        for _ in range(2):
            assert issuer.read(token, TokenKind.ACCESS)
            assert issuer.read(token, TokenKind.REFRESH) is None

    @pytest.mark.slow
    def test_a_verified_token_that_is_changed_is_refused(self, issuer: TokenIssuer) -> None:
        token = self.access_of(issuer)
        assert issuer.read(token, TokenKind.ACCESS)
        for changed in (token[:-1], token.swapcase(), f" {token}", token[1:]):
            assert issuer.read(changed, TokenKind.ACCESS) is None

    @pytest.mark.slow
    def test_an_expired_token_is_accepted_for_signing_out_only(self, issuer: TokenIssuer) -> None:
        expired = signed({**claims(self.access_of(issuer)), "exp": int(time.time()) - 1})
        for _ in range(2):
            assert issuer.read(expired, TokenKind.ACCESS, expired=True)
            assert issuer.read(expired, TokenKind.ACCESS) is None

    @pytest.mark.slow
    def test_verified_tokens_are_bounded_in_number_and_dropped_once_expired(
        self, issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Signing in again and again does not fill the memory."""
        first = self.access_of(issuer)
        for _ in range(MAX_VERIFIED):
            assert issuer.read(self.access_of(issuer), TokenKind.ACCESS)
        assert issuer.read(first, TokenKind.ACCESS)
        assert len(issuer.verified) == MAX_VERIFIED
        monkeypatch.setattr("security.clock.time", lambda: time.time() + 901)
        later = signed({**claims(first), "exp": int(time.time()) + 1800})
        assert issuer.read(later, TokenKind.ACCESS)
        assert list(issuer.verified) == [later]
