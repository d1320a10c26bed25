"""Where a file came from; what a job was quoted, what it took, and the digest of what it trained on"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("parent_id", sa.Text(), nullable=True))
    op.add_column("files", sa.Column("lineage", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("data_digests", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("quote", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("actual", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    for column in ("actual", "quote", "data_digests"):
        op.drop_column("jobs", column)
    for column in ("lineage", "parent_id"):
        op.drop_column("files", column)
