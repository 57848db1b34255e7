"""Build `qvd-vma.pyz`, the agent of every guest: one file, the same bytes from the same source.

    python3 images/build_vma.py OUTPUT

Beside each source file lies its byte code for the Python that built it; any other Python ignores that and
compiles the source, which costs it some tens of milliseconds at start.
"""

from __future__ import annotations

import argparse
import io
import marshal
import zipfile
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START = "from appliance.vma.__main__ import main\n\nraise SystemExit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def zipapp() -> bytes:
    """The whole file."""
    buffer = io.BytesIO(b"#!/usr/bin/env -S python3 -S -I\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", START.encode())
        for path in [ROOT / "appliance/__init__.py", *sorted((ROOT / "appliance/vma").glob("*.py"))]:
            name = path.relative_to(ROOT).as_posix()
            _add(archive, name, path.read_bytes())
            _add(archive, name + "c", _byte_code(path, name))
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)


def _byte_code(path: Path, name: str) -> bytes:
    """A .pyc that is valid as long as it lies beside its source, whatever the clock says (PEP 552).

    Version 2 of marshal has no back references: they depend on what else the interpreter holds.
    """
    source = path.read_bytes()
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    unchecked_hash = (1).to_bytes(4, "little")
    return MAGIC_NUMBER + unchecked_hash + source_hash(source) + marshal.dumps(code, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    options.output.write_bytes(zipapp())


if __name__ == "__main__":
    main()
