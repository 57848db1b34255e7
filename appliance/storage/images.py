"""Repository of `dis`, `di_tags` and `tag_history`: the disk images and what points at them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, ScalarSelect, delete, func, insert, select, true, update

from appliance.errors import NotFoundError
from appliance.filters import Filter
from appliance.model import TAG_HEAD, ArrivingDi, Di, DiId, OsfId, TagMove
from appliance.storage import image_states
from appliance.storage.connection import Connection
from appliance.storage.schema import di_properties, di_tags, dis, operations, osfs, tag_history, vm_runtimes
from appliance.storage.where import Keys, property_of, through, where

KEYS: Keys = {
    "id": dis.c.id,
    "osf_id": dis.c.osf_id,
    "osf": osfs.c.name,
    "path": dis.c.path,
    "version": dis.c.version,
    "sha256": dis.c.sha256,
    "created": dis.c.created,
    "notes": dis.c.notes,
    "blocked": dis.c.blocked,
    "until": dis.c.until,
    "state": image_states.OF_IMAGE,
    "tag": through(di_tags.c.tag, di_tags.c.di_id == dis.c.id),
}

HISTORY_KEYS: Keys = {
    "id": tag_history.c.id,
    "at": tag_history.c.at,
    "by": tag_history.c.by,
    "osf_id": tag_history.c.osf_id,
    "osf": osfs.c.name,
    "tag": tag_history.c.tag,
    "from_di_id": tag_history.c.from_di_id,
    "from_version": tag_history.c.from_version,
    "to_di_id": tag_history.c.to_di_id,
    "to_version": tag_history.c.to_version,
}


class Images:
    """The disk images and their tags."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def get(self, di_id: DiId) -> Di:
        """One DI.

        :raises NotFoundError: there is none with this id, or it is in the trash
        """
        found = await self.find(Filter.where(id=di_id), trash=True)
        if not found:
            raise NotFoundError(f"there is no DI with id {di_id}")
        if found[0].retired is not None:
            raise NotFoundError(f"DI {di_id} is in the trash", hint=f"qa di undelete -f id={di_id}")
        return found[0]

    async def find(self, filter_: Filter | None = None, *, trash: bool = False) -> list[Di]:
        """The DIs that pass, by id, with their tags; those in the trash only with `trash`."""
        passes = where(filter_, KEYS, property_of(di_properties, dis.c.id))
        rows = (
            await self._connection.execute(
                select(dis, osfs.c.name.label("osf"), image_states.OF_IMAGE.label("state"))
                .join(osfs, osfs.c.id == dis.c.osf_id)
                .where(passes, true() if trash else dis.c.retired.is_(None))
                .order_by(dis.c.id)
            )
        ).all()
        tags = await self._tags_of([row.id for row in rows])
        return [_di(row, tags.get(row.id, ())) for row in rows]

    async def arriving(self, filter_: Filter | None = None) -> list[ArrivingDi]:
        """The images under way that pass, by id: work that makes them has begun, and has not ended."""
        passes = where(filter_, image_states.keys_of_arriving(KEYS), image_states.no_property)
        rows = await self._connection.execute(
            select(
                image_states.MADE_ID.label("id"),
                image_states.OF_WORK.label("state"),
                *(operations.c[name] for name in ("progress", "begun", "owner")),
                osfs.c.id.label("osf_id"),
                osfs.c.name.label("osf"),
            )
            .select_from(operations)
            .outerjoin(osfs, osfs.c.id == image_states.MADE_FOR)
            .where(image_states.ARRIVES, passes)
            .order_by(operations.c.id)
        )
        return [ArrivingDi(**row._mapping) for row in rows]

    async def versions(self, ids: Collection[DiId]) -> dict[DiId, str]:
        """The versions of those of these DIs that are there."""
        rows = await self._connection.execute(select(dis.c.id, dis.c.version).where(dis.c.id.in_(ids)))
        return {DiId(row.id): row.version for row in rows}

    async def reserve_id(self, osf_id: OsfId) -> DiId:
        """A DI number that nobody else gets, before there is a row: ids are never used again."""
        row = insert(dis).values(
            osf_id=osf_id, path="", version="", sha256="", size_bytes=0, created=self._at
        )
        di_id = DiId((await self._connection.execute(row.returning(dis.c.id))).scalar_one())
        await self.delete([di_id])
        return di_id

    async def add(
        self,
        di_id: DiId,
        osf_id: OsfId,
        *,
        version: str,
        path: str,
        sha256: str,
        size_bytes: int,
        notes: str | None = None,
    ) -> None:
        """Register a DI under its reserved number; its version must be free within the OSF."""
        await self._connection.execute(
            insert(dis).values(
                id=di_id,
                osf_id=osf_id,
                version=version,
                path=path,
                sha256=sha256,
                size_bytes=size_bytes,
                created=self._at,
                notes=notes,
            )
        )

    async def edit_notes(self, ids: Collection[DiId], notes: str | None) -> None:
        """Write what is to be known about DIs, over what was there."""
        await self._connection.execute(update(dis).where(dis.c.id.in_(ids)).values(notes=notes))

    async def block(self, ids: Collection[DiId], blocked: bool) -> list[DiId]:
        """Let nothing boot these DIs, or anything again; returns which were not so before."""
        changed = update(dis).where(dis.c.id.in_(ids), dis.c.blocked != blocked).values(blocked=blocked)
        return sorted(await self._connection.scalars(changed.returning(dis.c.id)))

    async def retire(self, di_id: DiId, *, until: datetime, former_tags: Collection[str]) -> None:
        """Put a DI into the trash, with the moving tags that it had."""
        await self._connection.execute(
            update(dis)
            .where(dis.c.id == di_id)
            .values(retired=self._at, until=until, former_tags=",".join(former_tags) or None)
        )

    async def bring_back(self, ids: Collection[DiId]) -> None:
        """Take DIs out of the trash; without a tag so far."""
        await self._connection.execute(
            update(dis).where(dis.c.id.in_(ids)).values(retired=None, until=None, former_tags=None)
        )

    async def due(self) -> list[Di]:
        """What has been in the trash for long enough."""
        return [di for di in await self.find(trash=True) if di.until is not None and di.until <= self._at]

    async def moving_tags(self, di: Di) -> list[str]:
        """Those of a DI's tags that are not fixed at it."""
        tags = select(di_tags.c.tag).where(di_tags.c.di_id == di.id, ~di_tags.c.fixed).order_by(di_tags.c.tag)
        return list(await self._connection.scalars(tags))

    async def version_in_trash(self, osf_id: OsfId, version: str) -> DiId | None:
        """The DI of this version that an OSF has in the trash: it keeps the name for its return."""
        found = await self._connection.scalar(
            select(dis.c.id).where(
                dis.c.osf_id == osf_id, dis.c.version == version, dis.c.retired.is_not(None)
            )
        )
        return None if found is None else DiId(found)

    async def delete(self, ids: Collection[DiId]) -> int:
        """Remove DIs that nothing runs, with their tags; returns how many."""
        return (await self._connection.execute(delete(dis).where(dis.c.id.in_(ids)))).rowcount

    async def taken_names(self, osf_id: OsfId) -> set[str]:
        """Versions and tags of the OSF: a version becomes a tag, so both share one name space."""
        versions = await self._connection.scalars(select(dis.c.version).where(dis.c.osf_id == osf_id))
        tags = await self._connection.scalars(select(di_tags.c.tag).where(di_tags.c.osf_id == osf_id))
        return {*versions, *tags}

    async def tag_target(self, osf_id: OsfId, tag: str) -> tuple[DiId, bool] | None:
        """The DI at which a tag points, and whether it is fixed there."""
        row = (
            await self._connection.execute(
                select(di_tags.c.di_id, di_tags.c.fixed).where(
                    di_tags.c.osf_id == osf_id, di_tags.c.tag == tag
                )
            )
        ).one_or_none()
        return None if row is None else (DiId(row.di_id), row.fixed)

    async def point(
        self,
        osf_id: OsfId,
        tag: str,
        di_id: DiId | None,
        *,
        by: str,
        fixed: bool = False,
        undoes: int | None = None,
    ) -> DiId | None:
        """Let a tag point at a DI, or with None at nothing; returns where it pointed before.

        The move enters the tag's history, with the earlier one that it takes back, if it does.
        """
        before = await self.tag_target(osf_id, tag)
        was = None if before is None else before[0]
        if was == di_id:
            return was
        of_tag = (di_tags.c.osf_id == osf_id, di_tags.c.tag == tag)
        if di_id is None:
            await self._connection.execute(delete(di_tags).where(*of_tag))
        elif before is None:
            await self._connection.execute(
                insert(di_tags).values(osf_id=osf_id, tag=tag, di_id=di_id, fixed=fixed)
            )
        else:
            await self._connection.execute(update(di_tags).where(*of_tag).values(di_id=di_id))
        await self._connection.execute(
            insert(tag_history).values(
                at=self._at,
                by=by,
                osf_id=osf_id,
                tag=tag,
                from_di_id=was,
                to_di_id=di_id,
                undoes=undoes,
                from_version=_version_of(was),
                to_version=_version_of(di_id),
            )
        )
        return was

    async def history(self, filter_: Filter | None = None, *, most: int | None = None) -> list[TagMove]:
        """The moves of tags that pass, the newest last; of more than `most`, the newest."""
        newest = (
            select(tag_history, osfs.c.name.label("osf"))
            .join(osfs, osfs.c.id == tag_history.c.osf_id)
            .where(where(filter_, HISTORY_KEYS))
            .order_by(tag_history.c.id.desc())
            .limit(most)
        )
        rows = (await self._connection.execute(newest)).all()
        return [TagMove(**row._mapping) for row in reversed(rows)]

    async def move_to_undo(self, osf_id: OsfId | None, tag: str | None) -> TagMove | None:
        """The newest move, of an OSF and of a tag or of any, that is none back and was not taken back.

        Of any tag means of those that people move: not of `head`, and not of versions.
        """
        taken_back = select(tag_history.c.undoes).where(tag_history.c.undoes.is_not(None))
        which: list[ColumnElement[bool]] = [tag_history.c.undoes.is_(None)]
        which.append(tag_history.c.id.not_in(taken_back))
        if osf_id is not None:
            which.append(tag_history.c.osf_id == osf_id)
        if tag is not None:
            which.append(tag_history.c.tag == tag)
        else:
            versions = (tag_history.c.from_version, tag_history.c.to_version)
            which += [tag_history.c.tag != TAG_HEAD]
            which += [tag_history.c.tag.is_distinct_from(version) for version in versions]
        newest = (
            select(tag_history, osfs.c.name.label("osf"))
            .join(osfs, osfs.c.id == tag_history.c.osf_id)
            .where(*which)
            .order_by(tag_history.c.id.desc())
            .limit(1)
        )
        row = (await self._connection.execute(newest)).one_or_none()
        return None if row is None else TagMove(**row._mapping)

    async def newest(self, osf_id: OsfId, *, without: Collection[DiId] = ()) -> DiId | None:
        """The DI added last to an OSF that can be booted, leaving some out of account."""
        found = await self._connection.scalar(
            select(func.max(dis.c.id)).where(
                dis.c.osf_id == osf_id, dis.c.id.not_in(without), dis.c.retired.is_(None), ~dis.c.blocked
            )
        )
        return None if found is None else DiId(found)

    async def in_use(self, ids: Collection[DiId]) -> list[tuple[DiId, int]]:
        """Which of these DIs are booted by how many VMs now."""
        rows = await self._connection.execute(
            select(vm_runtimes.c.current_di_id, func.count())
            .where(vm_runtimes.c.current_di_id.in_(ids))
            .group_by(vm_runtimes.c.current_di_id)
        )
        return [(DiId(di_id), number) for di_id, number in rows]

    async def _tags_of(self, ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
        rows = await self._connection.execute(
            select(di_tags.c.di_id, di_tags.c.tag)
            .where(di_tags.c.di_id.in_(list(ids)))
            .order_by(di_tags.c.tag)
        )
        found: dict[int, tuple[str, ...]] = {}
        for di_id, tag in rows:
            found[di_id] = (*found.get(di_id, ()), tag)
        return found


def _version_of(di_id: DiId | None) -> ScalarSelect[str] | None:
    return None if di_id is None else select(dis.c.version).where(dis.c.id == di_id).scalar_subquery()


def _di(row: Row[Any], tags: tuple[str, ...]) -> Di:
    return Di(
        id=DiId(row.id),
        osf_id=OsfId(row.osf_id),
        osf=row.osf,
        version=row.version,
        path=row.path,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        created=row.created,
        tags=tags,
        state=row.state,
        notes=row.notes,
        blocked=row.blocked,
        retired=row.retired,
        until=row.until,
        former_tags=tuple(row.former_tags.split(",")) if row.former_tags else (),
    )
