"""What a frontend builds: the axios client and the types, generated from openapi.yaml, and a page of ours."""

import shutil
from pathlib import Path

import yaml
from playwright.sync_api import Page

from tests.external.running import CONTRACT, HERE, NODE_MODULES, node, run

GUIDE_URL = "http://localhost:8000"
COMPILER = ["--strict", "--noEmit", "--allowJs", "--target", "es2022", "--module", "esnext",
            "--moduleResolution", "bundler", "--lib", "es2022,dom"]  # fmt: skip


def generate_client(folder: Path, url: str = GUIDE_URL) -> Path:
    """`folder` with the generated client for the service at `url`, the types and our own sources."""
    shutil.copytree(HERE / "frontend", folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "guide.js").write_text(
        f"import axios from 'axios';\n{signing_in_code().replace(GUIDE_URL, url)}export {{ api }};\n"
    )
    plugins = ["@hey-api/client-axios", "@hey-api/typescript", "@hey-api/sdk"]
    run(node("openapi-ts"), "--input", CONTRACT, "--output", "client", "--plugins", *plugins, cwd=folder)
    run(node("openapi-typescript"), CONTRACT, "--output", "schema.d.ts", cwd=folder)
    return folder


def signing_in_code() -> str:
    """The code that openapi.yaml's description gives to those who write a frontend."""
    description: str = yaml.safe_load(CONTRACT.read_text())["info"]["description"]
    return description.partition("```js\n")[2].partition("```")[0]


def code_of_section(title: str) -> str:
    """The first code of a section of the guide."""
    description: str = yaml.safe_load(CONTRACT.read_text())["info"]["description"]
    return description.partition(f"\n## {title}\n")[2].partition("```js\n")[2].partition("```")[0]


def code_of_operation(path: str) -> str:
    """The code in the description of GET `path`."""
    description: str = yaml.safe_load(CONTRACT.read_text())["paths"][path]["get"]["description"]
    return description.partition("```js\n")[2].partition("```")[0]


def compile_types(folder: Path) -> None:
    """Let the TypeScript compiler check everything in `folder`."""
    run(node("tsc"), *COMPILER, "app.ts", "types.ts", cwd=folder)


def bundle(folder: Path) -> None:
    """Make `app.js`, which index.html loads, out of `app.ts` and all that it needs."""
    run(node("esbuild"), "app.ts", "--bundle", "--format=esm", "--outfile=app.js", cwd=folder)


LISTEN = """async (code) => {
  const { api } = window.app ?? window.guide;
  const listen = Function(code + 'return listen')();
  window.told = [];
  const { cursor } = (await api.get('/api/changes')).data;
  listen(cursor, (change) => told.push(change), () => { window.lost = true; });
}"""


def listen(page: Page, url: str = "") -> None:
    """Let the page keep in `told` what the service at `url`, or its own origin, tells by the guide's code;
    `lost`: whether that is over."""
    page.evaluate(LISTEN, code_of_section("What changed").replace("/api/", f"{url}/api/"))
