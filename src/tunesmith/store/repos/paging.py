"""One way to page through every table: ``after`` an id, at most ``limit`` rows."""

from typing import Any, Literal, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from tunesmith.core.errors import InvalidRequest
from tunesmith.store.tables import CheckpointRow, EventRow, FileRow, JobRow

Row = TypeVar("Row", FileRow, JobRow, EventRow, CheckpointRow)
Order = Literal["asc", "desc"]


def page(
    session: Session, table: type[Row], query: Select[Any], *, after: str | None, limit: int, order: Order = "desc"
) -> tuple[list[Row], bool]:
    """The rows of ``query`` that follow the row ``after``, newest first unless ``order`` is asc.

    Returns them with whether more follow. Raises ``InvalidRequest`` when there is no row ``after``.
    """
    if after is not None:
        number = session.scalar(select(table.number).where(table.id == after))
        if number is None:
            raise InvalidRequest(f"There is nothing with the id {after!r} to go on after.", param="after")
        query = query.where(table.number < number if order == "desc" else table.number > number)
    ordered = query.order_by(table.number.desc() if order == "desc" else table.number.asc())
    rows = list(session.scalars(ordered.limit(limit + 1)))
    return rows[:limit], len(rows) > limit
