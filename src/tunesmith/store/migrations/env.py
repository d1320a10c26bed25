"""Run by Alembic with the connection that ``Database.migrate`` opened: one transaction, on both databases."""

from alembic import context

from tunesmith.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
