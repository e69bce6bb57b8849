"""Build the published documentation: a folder for any web server, at any path of it, that asks no other host.

python docs/build.py [FOLDER]        (site/ unless said otherwise; files in it are written over)
"""

import json
import shutil
import sys
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

HERE = Path(__file__).parent
ROOT = HERE.parent
REFERENCE = ROOT / "api/reference"
PAGE = HERE / "page"
FILES = (
    ROOT / "openapi.yaml",
    REFERENCE / "reference.js",
    REFERENCE / "reference.css",
    REFERENCE / "scalar.js",
    REFERENCE / "scalar.js.LICENSE.txt",
    PAGE / "index.html",
    PAGE / "changelog.css",
)


def build(folder: Path) -> None:
    """The reference page (index.html), the contract (openapi.yaml) and what has changed (changelog.html)."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copy(file, folder)
    contract = yaml.load((ROOT / "openapi.yaml").read_bytes(), yaml.CSafeLoader)
    (folder / "openapi.json").write_text(json.dumps(contract))  # what the page reads, as from the service
    changes = MarkdownIt("commonmark", {"html": False}).render((ROOT / "CHANGELOG.md").read_text())
    changelog = (PAGE / "changelog.html").read_text().replace("{{ changes }}", changes)
    (folder / "changelog.html").write_text(changelog)


if __name__ == "__main__":
    chosen = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site")
    build(chosen)
    print(f"Put the files of {chosen} on any web server.")
