"""Take docs/reference.png for the README from the service as it runs."""

import tempfile
from pathlib import Path

from running import browser, open_reference, service

PICTURE = Path(__file__).parents[2] / "docs/reference.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as url, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1100, "height": 760})
        open_reference(page, url)
        page.locator("#operations-tag-Authentication").evaluate("heading => heading.scrollIntoView()")
        page.screenshot(path=PICTURE)


if __name__ == "__main__":
    main()
