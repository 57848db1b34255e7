#!/usr/bin/python3
"""Build the small LXC desktop image: one command, one root tarball, the same bytes each time.

The image is a Debian root with nxagent, openbox, xterm, a full python3, busybox as init and the VMA.
Packages come from the Debian archive that the host itself is configured for. Two builds from the same
state of that archive give the same file: names are sorted, owners numeric, times not later than the
archive's own Release date, and nothing of the host is copied in.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from images.build_vma import zipapp  # noqa: E402

OVERLAY = HERE / "overlay"
VMA_PLACE = "usr/lib/qvd/qvd-vma.pyz"

PACKAGES = (
    "busybox-static",  # init, poweroff, reboot
    "bash",  # the users' shell
    "ca-certificates",
    "fonts-dejavu-core",  # letters for the terminal
    "hsetroot",  # the background
    "iproute2",
    "login",
    "nxagent",
    "openbox",
    "passwd",  # useradd and groupadd, for the VMA
    "procps",
    "python3",  # the VMA's interpreter
    "util-linux",  # agetty
    "xinit",
    "xterm",
)
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
BUSYBOX_COMMANDS = ("init", "poweroff", "reboot", "halt")


class BuildError(Exception):
    """The image cannot be built; the message says why and what to do."""


def archive_lines(targets: str) -> list[str]:
    """The `sources.list` lines of Debian's own archive among `apt-get indextargets` output."""
    components: dict[tuple[str, str], list[str]] = {}
    for line in targets.splitlines():
        origin, uri, suite, component, _ = line.split("|")
        if origin == "Debian":
            names = components.setdefault((uri, suite), [])
            if component not in names:
                names.append(component)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return [
        f"deb [signed-by={keyring}] {uri} {suite} {' '.join(names)}"
        for (uri, suite), names in components.items()
    ]


def release_epoch(targets: str) -> int:
    """The newest date, in seconds since 1970, that the Release files behind these targets carry."""
    dates = [
        int(parsedate_to_datetime(line.partition(":")[2].strip()).timestamp())
        for release in sorted(_release_files(targets))
        for line in release.read_text(errors="replace").splitlines()
        if line.startswith("Date:")
    ]
    if not dates:
        raise BuildError("no Release file of the Debian archive is here: run `apt-get update`")
    return max(dates)


def _release_files(targets: str) -> Iterator[Path]:
    for line in targets.splitlines():
        origin, _, suite, _, index = line.split("|")
        if origin == "Debian":
            prefix = index.partition(f"_dists_{suite}_")[0]
            yield from (
                path
                for name in ("InRelease", "Release")
                if (path := Path(f"{prefix}_dists_{suite}_{name}")).exists()
            )


def overlay_tar(overlay: Path, extra: Mapping[str, bytes], epoch: int) -> bytes:
    """A tarball of the files below `overlay` and of `extra` (name: content), owned by root, dated `epoch`.

    Only the execute bit of a file counts, so the umask of a check-out does not reach the image.
    """
    files = {
        path.relative_to(overlay).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in overlay.rglob("*")
        if path.is_file()
    }
    files |= {name: (content, False) for name, content in extra.items()}
    directories = {parent.as_posix() for name in files for parent in Path(name).parents} - {"."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(directories | set(files)):
            entry = tarfile.TarInfo(name)
            entry.mtime = epoch
            if name in directories:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            else:
                content, executable = files[name]
                entry.size, entry.mode = len(content), 0o755 if executable else 0o644
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def mmdebstrap_command(packages: Sequence[str], sources: Path, files: Path, target: Path) -> list[str]:
    """The command that makes the root from `sources` (apt lines) and lays `files` (a tarball) over it."""
    links = " ".join(f'ln -sf ../bin/busybox "$1/usr/sbin/{name}";' for name in BUSYBOX_COMMANDS)
    finish = (
        ': >"$1/etc/machine-id"; rm -f "$1/etc/resolv.conf" "$1/etc/hostname"; : >"$1/etc/resolv.conf";'
        ' echo desktop >"$1/etc/hostname"; echo "127.0.0.1 localhost" >"$1/etc/hosts";'
        ' chroot "$1" passwd -q -l root; rm -f "$1/etc/passwd-" "$1/etc/shadow-"'
    )
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNWANTED),
        *(f"--dpkgopt=path-include={pattern}" for pattern in KEPT),
        "--aptopt=Apt::Install-Recommends false",
        f"--customize-hook=tar-in {shlex.quote(str(files))} /",
        f"--customize-hook={links} {finish}",
        "",
        str(target),
        str(sources),
    ]


def digest(parts: Sequence[bytes]) -> str:
    """One SHA-256 over all inputs, each with its length, so that no two lists of parts look alike."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def build(output: Path, packages: Sequence[str], *, with_vma: bool) -> None:
    """Build `output`, unless it is there already and was built from the same inputs.

    :raises BuildError: not root, a tool or the archive is missing, or mmdebstrap failed
    """
    extra = {VMA_PLACE: zipapp()} if with_vma else {}
    targets = _archive_targets()
    sources = archive_lines(targets)
    inputs = digest(
        [
            Path(__file__).read_bytes(),
            overlay_tar(OVERLAY, extra, epoch=0),
            "\n".join([*packages, "", *sources]).encode(),
        ]
    )
    stamp = output.with_name(f"{output.name}.inputs")
    if output.exists() and stamp.exists() and stamp.read_text().strip() == inputs:
        print(f"{output} is up to date")
        return
    if os.geteuid() != 0:
        raise BuildError("only root can build an image: owners and device nodes must be right")
    started = time.monotonic()
    epoch = release_epoch(targets)
    print(f"building {output}: {len(packages)} packages and their dependencies …", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as scratch:
        work = Path(scratch)
        (work / "archive.list").write_text("\n".join(sources) + "\n")
        (work / "overlay.tar").write_bytes(overlay_tar(OVERLAY, extra, epoch))
        made = work / "root.tar.zst"
        _run(mmdebstrap_command(packages, work / "archive.list", work / "overlay.tar", made), epoch)
        stamp.unlink(missing_ok=True)
        made.replace(output)
    stamp.write_text(f"{inputs}\n")
    sha256 = hashlib.sha256(output.read_bytes()).hexdigest()
    took = time.monotonic() - started
    print(f"{output}: {output.stat().st_size / 1e6:.0f} MB in {took:.0f} s, sha256 {sha256}")


def _archive_targets() -> str:
    query = [
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(FILENAME)",
        "Created-By: Packages",
    ]
    for command in (["true"], ["apt-get", "update", "-q"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        targets = subprocess.run(query, check=True, capture_output=True, text=True).stdout
        if any(line.startswith("Debian|") for line in targets.splitlines()):
            return targets
    raise BuildError("apt knows no Debian archive: check /etc/apt/sources.list")


def _run(command: Sequence[str], epoch: int) -> None:
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    shell = "apt-config shell http_proxy Acquire::http::Proxy"
    proxy = shlex.split(subprocess.run(shell.split(), check=True, capture_output=True, text=True).stdout)
    environment |= dict(word.split("=", 1) for word in proxy)
    try:
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError as exc:
        raise BuildError(f"{command[0]} is missing: run scripts/setup") from exc
    if ended.returncode:
        tail = ended.stdout.decode(errors="replace").strip().splitlines()[-15:]
        raise BuildError("\n".join([*tail, f"mmdebstrap failed with status {ended.returncode}"]))


def main(argv: Sequence[str] | None = None) -> int:
    """Build the image named on the command line; 1 if that fails."""
    parser = argparse.ArgumentParser(description="Build the small LXC desktop image.")
    parser.add_argument("output", type=Path, metavar="OUTPUT.tar.zst")
    parser.add_argument("--include", metavar="PKG,…", default="", help="further Debian packages")
    parser.add_argument(
        "--without-vma", action="store_true", help="leave the VMA out (to test what then happens)"
    )
    options = parser.parse_args(argv)
    if not options.output.name.endswith(".tar.zst"):
        parser.error(f"{options.output}: the name must end in .tar.zst")
    packages = sorted({*PACKAGES, *filter(None, options.include.split(","))})
    try:
        build(options.output.resolve(), packages, with_vma=not options.without_vma)
    except (BuildError, OSError, subprocess.CalledProcessError) as exc:
        print(f"build_lxc: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
