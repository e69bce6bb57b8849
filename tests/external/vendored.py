"""Scalar in api/reference is what npm publishes, and the licences of the libraries in it are there.

`python vendored.py` compares; `python vendored.py renew` takes the version below from npm.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@scalar/api-reference"
VERSION = "1.72.1"
BUNDLE = "dist/browser/standalone.js"
REFERENCE = Path(__file__).parents[2] / "api/reference"
SCALAR = REFERENCE / "scalar.js"
LICENCES = REFERENCE / "scalar.js.LICENSE.txt"
RULE = "=" * 78
# In a source map: node_modules/.pnpm/@vue+shared@3.5.40_what-it-is-built-with/node_modules/@vue/shared/…
LIBRARY = re.compile(r"\.pnpm/(?:@[^/+]+\+)?[^/@]+@([^/_]+)[^/]*/node_modules/((?:@[^/]+/)?[^/]+)/")


def compare(folder: Path) -> None:
    """AssertionError where the files here are not those of the package."""
    npm("pack", "--silent", f"{PACKAGE}@{VERSION}", cwd=folder)
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    bundle = folder / "package" / BUNDLE
    assert bundle.read_bytes() == SCALAR.read_bytes(), f"{SCALAR} is not that of {PACKAGE}@{VERSION}"
    named = set(re.findall(rf"^{RULE}\n((?:\S+@\S+\n)+)", LICENCES.read_text(), re.MULTILINE))
    listed = {library for group in named for library in group.split()}
    assert libraries_in(bundle) == listed, f"{LICENCES} does not list the libraries in {SCALAR}"


def renew(folder: Path) -> None:
    """Copy the bundle, and the licence of every library that its source map names."""
    (folder / "package.json").write_text('{ "private": true }')
    npm("install", "--ignore-scripts", "--no-audit", "--no-fund", f"{PACKAGE}@{VERSION}", cwd=folder)
    modules = folder / "node_modules"
    bundle = modules / PACKAGE / BUNDLE
    SCALAR.write_bytes(bundle.read_bytes())
    by_licence: dict[str, list[str]] = {}
    for library in sorted(libraries_in(bundle)):
        by_licence.setdefault(licence_of(modules / library.rpartition("@")[0]), []).append(library)
    groups = ["\n".join([RULE, *names, "", licence]) for licence, names in by_licence.items()]
    LICENCES.write_text("The libraries that are part of scalar.js.\n\n" + "\n".join(groups))


def libraries_in(bundle: Path) -> set[str]:
    """`name@version` of each library that was built into the bundle."""
    sources = json.loads(bundle.with_name(f"{bundle.name}.map").read_text())["sources"]
    return {f"{found[2]}@{found[1]}" for source in sources if (found := LIBRARY.search(source))}


def licence_of(package: Path) -> str:
    """The text that it comes with, or the name of its licence where it comes with none."""
    texts = [file for file in sorted(package.glob("*")) if re.match(r"(?i)licen[cs]e|notice", file.name)]
    if texts:
        return "\n".join(file.read_text().strip() for file in texts) + "\n"
    manifest = package / "package.json"
    named = json.loads(manifest.read_text())["license"] if manifest.exists() else "MIT"
    return f"{named}; the package has no text of it\n"


def npm(*arguments: str, cwd: Path) -> None:
    tool = shutil.which("npm") or "npm"
    subprocess.run([tool, *arguments], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        (renew if sys.argv[1:] == ["renew"] else compare)(Path(temporary))
