import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from databases import database, database_url, postgres_server

__all__ = ["database", "database_url", "postgres_server"]
