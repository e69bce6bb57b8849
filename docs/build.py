"""Build the published documentation: a folder for any web server, at any path of it, that asks no other host.

python docs/build.py [FOLDER]        (site/ unless said otherwise; files in it are written over)
"""

import shutil
import sys
from pathlib import Path

from markdown_it import MarkdownIt

HERE = Path(__file__).parent
ROOT = HERE.parent
REFERENCE = ROOT / "api/reference"
PAGE_FILES = (
    "swagger-ui-bundle.js",
    "swagger-ui.css",
    "narrow.css",
    "swagger-ui-bundle.js.LICENSE.txt",
    "LICENSE",
    "NOTICE",
)
OURS = ("index.html", "site.js", "site.css")


def build(folder: Path) -> None:
    """The reference page (index.html), the contract (openapi.yaml) and what has changed (changelog.html)."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in [
        ROOT / "openapi.yaml",
        *(REFERENCE / n for n in PAGE_FILES),
        *(HERE / "page" / n for n in OURS),
    ]:
        shutil.copy(source, folder)
    changes = MarkdownIt("commonmark", {"html": False}).render((ROOT / "CHANGELOG.md").read_text())
    page = (HERE / "page/changelog.html").read_text().replace("{{ changes }}", changes)
    (folder / "changelog.html").write_text(page)


if __name__ == "__main__":
    chosen = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site")
    build(chosen)
    print(f"Put the files of {chosen} on any web server.")
