"""Tuned models and checkpoints by name."""

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from tunesmith.store.tables import ModelRow


class ModelRepo:
    def __init__(self, session: Session):
        self._session = session

    def add(self, row: ModelRow) -> ModelRow:
        self._session.add(row)
        self._session.flush()
        return row

    def get(self, name: str) -> ModelRow | None:
        """The model of that name, unless it was deleted."""
        return self._session.scalar(select(ModelRow).where(ModelRow.id == name, ModelRow.deleted.is_(False)))

    def list_all(self) -> list[ModelRow]:
        """Every model that is there, newest first."""
        query = select(ModelRow).where(ModelRow.deleted.is_(False)).order_by(ModelRow.number.desc())
        return list(self._session.scalars(query))

    def list_of_job(self, job_id: str) -> list[ModelRow]:
        query = select(ModelRow).where(ModelRow.job_id == job_id, ModelRow.deleted.is_(False))
        return list(self._session.scalars(query.order_by(ModelRow.number.desc())))

    def delete(self, name: str) -> bool:
        """Mark a model deleted; whether it was there. Its files stay with its job's run directory."""
        rows = update(ModelRow).where(ModelRow.id == name, ModelRow.deleted.is_(False))
        return self._session.scalar(rows.values(deleted=True).returning(ModelRow.id)) is not None

    def mark_steps_deleted(self, job_id: str, steps: Sequence[int]) -> None:
        """The weights of these steps are gone, so no name may answer for them."""
        rows = update(ModelRow).where(ModelRow.job_id == job_id, ModelRow.checkpoint_step.in_(steps))
        self._session.execute(rows.values(deleted=True))
