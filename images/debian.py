"""What the builders of guest images share: a Debian root, from the archive that this machine uses.

Two builds from the same state of that archive give the same root: names are sorted, owners numeric, times not
later than the archive's own Release date, and nothing of this machine is copied in. An image is built anew
only when something that goes into it has changed; a build that fails leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from images.build_vma import zipapp

HERE = Path(__file__).resolve().parent
OVERLAY = HERE / "overlay"
VMA_PLACE = "usr/lib/qvd/qvd-vma.pyz"

DESKTOP = (
    "bash",  # the users' shell
    "busybox-static",
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
    "python3-tk",  # the dialogs of the notifier
    "util-linux",  # agetty
    "xinit",
    "xterm",
)
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
CLEAN = (
    ': >"$1/etc/machine-id"; rm -f "$1/etc/resolv.conf" "$1/etc/hostname"; : >"$1/etc/resolv.conf";'
    ' echo desktop >"$1/etc/hostname"; echo "127.0.0.1 localhost" >"$1/etc/hosts";'
    ' chroot "$1" passwd -q -l root; rm -f "$1/etc/passwd-" "$1/etc/shadow-"'
)


class BuildError(Exception):
    """The image cannot be built; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """What makes a root: packages, directories of files laid over it, and a last shell command on `$1`."""

    packages: Sequence[str]
    overlays: Sequence[Path]
    extra: Mapping[str, bytes]
    finish: str
    form: str
    """`tar` or `directory`, as mmdebstrap names them."""


def agent(with_vma: bool) -> Mapping[str, bytes]:
    """The VMA as a file of the image, or nothing, to test what then happens."""
    return {VMA_PLACE: zipapp()} if with_vma else {}


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


def overlay_tar(overlays: Sequence[Path], extra: Mapping[str, bytes], epoch: int) -> bytes:
    """A tarball of the files below `overlays` and of `extra` (name: content), owned by root, dated `epoch`.

    Only the execute bit of a file counts, so the umask of a check-out does not reach the image.
    """
    files = {
        path.relative_to(overlay).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for overlay in overlays
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


def mmdebstrap_command(root: Root, sources: Path, files: Path, target: Path) -> list[str]:
    """The command that makes `root` in `target` from `sources` (apt lines); the tarball `files` over it."""
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--format={root.form}",
        f"--include={','.join(root.packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNWANTED),
        *(f"--dpkgopt=path-include={pattern}" for pattern in KEPT),
        "--aptopt=Apt::Install-Recommends false",
        f"--customize-hook=tar-in {shlex.quote(str(files))} /",
        f"--customize-hook={root.finish} {CLEAN}",
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


def build(
    output: Path, root: Root, builders: Sequence[Path], target: str, pack: Callable[[Path, int], Path]
) -> None:
    """Build `output`, unless it is there already and was built from the same inputs; one builder at a time.

    `builders` are the program's own files, which are inputs too. `pack` gets the root as `target` in a
    scratch directory, and the date of the image; it returns the file that becomes `output`.

    :raises BuildError: not root, a tool or the archive is missing, or a tool failed
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.with_name(f".{output.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(output, root, builders, target, pack)


def _build(
    output: Path, root: Root, builders: Sequence[Path], target: str, pack: Callable[[Path, int], Path]
) -> None:
    targets = _archive_targets()
    sources = archive_lines(targets)
    inputs = digest(
        [
            *(path.read_bytes() for path in (Path(__file__), *builders)),
            overlay_tar(root.overlays, root.extra, epoch=0),
            "\n".join([root.finish, root.form, *root.packages, "", *sources]).encode(),
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
    print(f"building {output}: {len(root.packages)} packages and their dependencies …", flush=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as scratch:
        work = Path(scratch)
        (work / "archive.list").write_text("\n".join(sources) + "\n")
        (work / "overlay.tar").write_bytes(overlay_tar(root.overlays, root.extra, epoch))
        run(mmdebstrap_command(root, work / "archive.list", work / "overlay.tar", work / target), epoch)
        made = pack(work / target, epoch)
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


def run(command: Sequence[str], epoch: int, **variables: str) -> None:
    """Run a tool as on any machine. Raises BuildError with the last lines of what it said."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TZ": "UTC"} | variables
    shell = "apt-config shell http_proxy Acquire::http::Proxy"
    proxy = shlex.split(subprocess.run(shell.split(), check=True, capture_output=True, text=True).stdout)
    environment |= dict(word.split("=", 1) for word in proxy)
    try:
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError as exc:
        raise BuildError(f"{command[0]} is missing: run scripts/setup") from exc
    if ended.returncode:
        tail = ended.stdout.decode(errors="replace").strip().splitlines()[-15:]
        raise BuildError("\n".join([*tail, f"{command[0]} failed with status {ended.returncode}"]))
