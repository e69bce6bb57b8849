"""Take docs/reference.png for the README from the service as it runs."""

import tempfile
from pathlib import Path

from tests.external.reference import clean_page, open_reference, section
from tests.external.running import launch_browser, start_dev

PICTURE = Path(__file__).parents[2] / "docs/reference.png"


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        start_dev(Path(folder)) as url,
        launch_browser() as chromium,
        clean_page(chromium, url) as page,
    ):
        open_reference(page, f"{url}/docs")
        page.goto(f"{url}/docs#tag/patients/createPatient")
        section(page, "createPatient").get_by_role("button", name="Test Request").wait_for()
        page.wait_for_timeout(1000)  # until it has scrolled there
        page.screenshot(path=PICTURE)


if __name__ == "__main__":
    main()
