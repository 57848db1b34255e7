"""Work beside the handlers of a screen, begun when the loop comes to it, so that none is half made."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from textual.dom import DOMNode
from textual.worker import Worker


def start(
    node: DOMNode,
    work: Callable[[], Coroutine[Any, Any, object]],
    *,
    group: str,
    exclusive: bool = False,
) -> Worker[Any]:
    """Let `work` be done as a worker of `node`; with `exclusive`, what its group did before is given up."""
    begun: Any = work
    worker: Worker[Any] = node.run_worker(begun, group=group, exclusive=exclusive)
    return worker
