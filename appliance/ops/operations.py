"""Long work as people see it: giving it up, whether whoever does it still lives or not."""

from __future__ import annotations

from appliance.config import Settings
from appliance.errors import ConflictError, few
from appliance.filters import Filter
from appliance.ops import images
from appliance.storage.operations import CANCELLABLE
from appliance.storage.paths import Paths
from appliance.storage.store import Store


async def cancel(store: Store, settings: Settings, filter_: Filter, *, by: str) -> int:
    """Ask for work under way to be given up, all of what passes or none; returns how much there was.

    What a killed process left of such work is removed here and now.

    :raises ConflictError: some of it is finished rather than given up
    """
    async with store.write() as tx:
        found = await tx.operations.find(filter_)
        if fixed := [operation for operation in found if operation.kind not in CANCELLABLE]:
            shown = few([f"{operation.id} ({operation.kind})" for operation in fixed])
            raise ConflictError(
                f"this work cannot be given up half done: {shown}",
                hint="it ends by itself; what was killed is finished by the next command of its kind",
            )
        number = await tx.operations.cancel([operation.id for operation in found])
        for operation in found:
            await tx.log.append(by=by, what="operation cancel", object=f"operation {operation.id}")
    await images.sweep_unfinished(store, Paths(settings))
    return number
