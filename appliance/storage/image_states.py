"""Where images are in their life, told from rows: of images, of their tags, and of work on them."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Enum, Integer, String, and_, case, cast, exists, func, literal, null

from appliance.filters import Condition
from appliance.model import TAG_HEAD, DiState
from appliance.storage.operations import MAKES_IMAGES, Kind
from appliance.storage.schema import di_tags, dis, operations, osfs
from appliance.storage.where import Keys, Predicate, compare

COPIED = 0.5
"""How far an import is when its file is in place, and begins to be unpacked or looked over."""
WORDS = Enum(DiState, values_callable=lambda cls: [word.value for word in cls], native_enum=False, length=16)


def _word(state: DiState) -> ColumnElement[DiState]:
    return literal(state, WORDS)


IS_PUBLISHED = (
    exists()
    .where(di_tags.c.di_id == dis.c.id, ~di_tags.c.fixed, di_tags.c.tag != TAG_HEAD)
    .correlate_except(di_tags)
)
OF_IMAGE: ColumnElement[DiState] = case(
    (dis.c.retired.is_not(None), _word(DiState.RETIRED)),
    (IS_PUBLISHED, _word(DiState.PUBLISHED)),
    else_=_word(DiState.READY),
)
OF_WORK: ColumnElement[DiState] = case(
    (operations.c.kind == Kind.DI_DUPLICATE, _word(DiState.GENERATING)),
    (operations.c.progress == 0, _word(DiState.NEW)),
    (operations.c.progress < COPIED, _word(DiState.UPLOADING)),
    else_=_word(DiState.VERIFYING),
)

MADE_ID = cast(operations.c.object, Integer)
MADE_FOR = cast(
    case((func.json_valid(operations.c.plan) == 1, func.json_extract(operations.c.plan, "$.osf_id"))), Integer
)
"""The OSF for which work makes an image, if its plan says so."""
ARRIVES = and_(
    operations.c.kind.in_(MAKES_IMAGES),
    operations.c.ended.is_(None),
    ~exists().where(dis.c.id == MADE_ID).correlate_except(dis),
)
"""Work that makes an image of which there is no row yet."""


def keys_of_arriving(keys: Keys) -> Keys:
    """The filter keys of images, for those that arrive: what an image has only later, these have not."""
    absent = cast(null(), String)
    return {
        **dict.fromkeys(keys, absent),
        "id": MADE_ID,
        "osf_id": MADE_FOR,
        "osf": osfs.c.name,
        "state": OF_WORK,
        "created": operations.c.begun,
    }


def no_property(condition: Condition) -> Predicate:
    """An image that arrives has no properties."""
    return compare(cast(null(), String), condition)
