"""Ways to end the sessions of an account."""

from tests.support.client import Browser
from tests.support.factories import World


def sign_out(world: World, browser: Browser) -> None:
    assert world.service.browser(browser.cookies).post("/api/auth/logout").status_code == 200


def disable(world: World, browser: Browser) -> None:
    assert world.admin.patch(f"/api/users/{browser.me()['id']}", {"status": "disabled"}).status_code == 200
