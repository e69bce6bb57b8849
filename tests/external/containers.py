"""Podman with a store of its own, and the image in it: its base is made of Debian's packages, because a
registry of images may be out of reach. Its steps are the Containerfile's."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.external.running import ROOT, TOOL_SECONDS, run

BASE = "localhost/base"
IMAGE = "localhost/medisecure"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
# Rights that root lacks in some sandboxes: to raise its own limits.
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
LOCKS = "deploy/requirements.txt", "deploy/build-requirements.txt"
PIP_CONF = "[global]\nno-index = true\nfind-links = /var/wheels\ndisable-pip-version-check = true\n"


@dataclass(frozen=True)
class Podman:
    """Images and containers in `folder`, apart from those of the machine."""

    folder: Path

    def __call__(
        self, *arguments: str | Path, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        # runc, because crun 1.8 refuses machines with both versions of cgroups.
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run", "--runtime", "runc")
        done = subprocess.run(
            ["podman", *store, *arguments],  # noqa: S607  # wherever Debian puts it
            cwd=ROOT,
            env=os.environ | {"DISABLE_HC_SYSTEMD": "true"},  # health is asked for by the tests
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"podman {arguments}:\n{done.stdout}{done.stderr}"
        return done

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container of the image, with nothing but a read-only file system."""
        bare = ("--network", "none", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all")
        return self("run", "--rm", *bare, *LIMITS, IMAGE, *arguments, check=check)

    @contextmanager
    def network(self) -> Iterator[tuple[str, str]]:
        """The name of a new network and the address of this machine in it."""
        name = f"medisecure{os.getpid()}"
        self("network", "create", name)
        try:
            gateway = self("network", "inspect", name, "--format", "{{(index .Subnets 0).Gateway}}")
            # The machine has that address for as long as a container is in the network.
            with self.start("--network", name, *LIMITS, BASE, "sleep", "infinity", name="holder"):
                yield name, gateway.stdout.strip()
        finally:
            self("network", "rm", "--force", name)

    @contextmanager
    def start(self, *arguments: str, name: str) -> Iterator[str]:
        """A running container's address."""
        self("run", "--detach", "--name", name, *arguments)
        try:
            address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            yield self("inspect", name, "--format", address).stdout.strip()
        finally:
            self("rm", "--force", "--time", "0", name)


@contextmanager
def build_image() -> Iterator[Podman]:
    for program, package in {"podman": "podman", "runc": "runc", "debootstrap": "debootstrap"}.items():
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is missing; on Debian `apt-get install {package}` brings it")
    with TemporaryDirectory(prefix="medisecure-image-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        podman = Podman(folder)
        base = make_base(folder / "base")
        wheels = download_wheels(folder, version_of_python(base))
        run("tar", "--create", "--directory", base, "--file", folder / "base.tar", ".")
        shutil.rmtree(base)
        podman("import", "--quiet", folder / "base.tar", BASE)
        (folder / "base.tar").unlink()
        (folder / "pip.conf").write_text(PIP_CONF)
        podman(
            *("build", "--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={BASE}"),
            *("--volume", f"{wheels}:/var/wheels:ro", "--volume", f"{folder}/pip.conf:/etc/pip.conf:ro"),
            *("--tag", IMAGE, "--file", "Containerfile", "."),
        )
        yield podman


def make_base(folder: Path) -> Path:
    """Debian as this machine has it, from where this machine has it, with Python and nothing else."""
    release = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    mirror = re.search(r"https?://\S+", run("apt-cache", "policy", "python3"))
    assert release
    assert mirror, "apt knows no mirror: `apt-get update`"
    run(
        *("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}"),
        *(release[1], folder, mirror[0]),
    )
    return folder


def version_of_python(base: Path) -> str:
    return os.readlink(base / "usr/bin/python3").removeprefix("python")


def download_wheels(folder: Path, version: str) -> Path:
    """What the locks name, by this machine's pip and from wherever that gets packages. The build itself needs
    no index then. The base has another Python, so all are taken, whatever their markers say."""
    wanted = folder / "wanted.txt"
    locks = "".join((ROOT / lock).read_text() for lock in LOCKS)
    wanted.write_text(once_each(re.sub(r" ; .*(?= \\$)", "", locks, flags=re.MULTILINE)))
    run(
        *("python", "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--python-version", version),
        *("--dest", folder / "wheels", "--requirement", wanted),
    )
    return folder / "wheels"


def once_each(locks: str) -> str:
    return "".join(dict.fromkeys(re.split(r"^(?=\w)", locks, flags=re.MULTILINE)))


def options_of(service: Mapping[str, Any], secrets: Path) -> list[str]:  # Any: as YAML says
    """Podman's options for a service of deploy/compose.yaml, but for its networks."""
    options = [f"--env={name}={value}" for name, value in service.get("environment", {}).items()]
    options += [f"--volume={secrets / name}:/run/secrets/{name}:ro" for name in service["secrets"]]
    options += [f"--cap-drop={name}" for name in service["cap_drop"]]
    options += [f"--security-opt={option.removesuffix(':true')}" for option in service["security_opt"]]
    options += [f"--memory={service['mem_limit']}", f"--pids-limit={service['pids_limit']}"]
    if service["read_only"]:
        options += ["--read-only", "--read-only-tmpfs=false"]
    return [*options, f"--user={service['user']}", *LIMITS]
