"""`scripts/full story`: everybody on the new image by Saturday, forty desktops, ten people connected."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from scripts.trial import ROOT
from tests.full.measurements import append
from tests.support.images import Variants
from tests.support.story import story, tell

DESKTOPS, CONNECTED = 40, 10


def main() -> int:
    """Tell the story, and write down how long it took."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qvd-story-") as directory:
        images = Path(directory) / "images"
        images.mkdir()
        variants = Variants(ROOT / "build" / "desktop.tar.zst", images)
        with story(Path(directory) / "trial", variants, desktops=DESKTOPS, connected=CONNECTED) as made:
            tell(made, print)
    append(
        "Ageing, the whole story (`scripts/full story`)",
        f"{DESKTOPS} desktops, {CONNECTED} of them connected by nxproxy: asked, warned, moved and back, each "
        f"started exactly once; {time.monotonic() - begun:.0f} s.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
