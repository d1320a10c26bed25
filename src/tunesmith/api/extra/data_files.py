"""Data files of the store as local paths, the model that looks at them, and new files made from them."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.api.extra.data_process import ModelFiles
from tunesmith.api.extra.leftovers import locked
from tunesmith.catalog.models import embedded_model, find_base_model, is_installed
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.ids import new_id
from tunesmith.core.settings import Settings
from tunesmith.data.completions import completions_for
from tunesmith.data.derived_name import derived_name
from tunesmith.data.tokens import Completions
from tunesmith.serving.registry import Registry
from tunesmith.store.blobs import CHUNK_BYTES, BlobStore
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.tables import FileRow

DATA_PURPOSE = "fine-tune"


class DataFiles:
    """Every method may be called from any thread."""

    def __init__(self, settings: Settings, database: Database, blobs: BlobStore, registry: Registry):
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._registry = registry

    def find(self, file_id: str, param: str = "id") -> FileRow:
        """A file of any purpose. Raises NotFound also for one that has expired."""
        with self._database.reading() as session:
            row = FileRepo(session).get(file_id)
        if row is None or (row.expires_at is not None and row.expires_at <= unix_now_s()):
            raise NotFound(f"No such File object: {file_id}", param=param)
        return row

    def find_data(self, file_id: str, param: str = "id") -> FileRow:
        """A file to train on. Raises NotFound, and InvalidRequest for one of another purpose."""
        row = self.find(file_id, param)
        if row.purpose != DATA_PURPOSE:
            raise InvalidRequest(
                f"{file_id} was uploaded for {row.purpose!r}: only files for {DATA_PURPOSE!r} are data sets.",
                param=param,
                code="invalid_file",
                mend=f"Upload it again with the purpose {DATA_PURPOSE!r}.",
            )
        return row

    def list_page(self, after: str | None, limit: int) -> tuple[list[FileRow], bool]:
        """Files to train on, newest first, and whether more follow."""
        with self._database.reading() as session:
            return FileRepo(session).list_page(after=after, limit=limit, purpose=DATA_PURPOSE, alive_at=unix_now_s())

    def children_of(self, file_id: str) -> list[str]:
        with self._database.reading() as session:
            return [row.id for row in FileRepo(session).list_children(file_id)]

    def local_path(self, row: FileRow) -> Path:
        """The file's bytes on this machine; a copy is kept where the store is elsewhere."""
        path = self._blobs.path(row.id)
        if path is None:
            path = self.copies_dir / row.sha256
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._blobs.fetch(row.id, path)
        return path

    def model(self, name: str | None, completions: Completions | None = None) -> ModelFiles | None:
        """The model of this name; without one the model that comes with the program, None where it is not installed.

        ``completions`` is a job's option: without it, as in a job, the model decides. Raises NotFound for an unknown
        name, Unavailable for a base model whose files are not here, InvalidRequest for raw text and a chat model.
        """
        if name is None:
            embedded = embedded_model()
            if not is_installed(self._settings, embedded.id):
                return None
            name = embedded.id
        served = self._registry.resolve(name)
        base = find_base_model(self._settings, served.base_model)
        assert base is not None, "the registry has just found it"
        return ModelFiles(
            name=served.name,
            base_dir=str(served.base_dir),
            template_dir=None if served.checkpoint_dir is None else str(served.checkpoint_dir),
            limit_tokens=base.context_tokens,
            completions=completions_for(base, completions),
        )

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A folder for files in the making."""
        parent = self._settings.home / "cache"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".making-") as folder, locked(Path(folder)):
            yield Path(folder)

    def keep(
        self, parent: FileRow, paths: Sequence[tuple[Path, str]], lineage: Callable[[list[str]], list[dict[str, Any]]]
    ) -> list[FileRow]:
        """New files made from ``parent``: all of them or none. ``paths`` are local files and the words for their names.

        ``lineage`` makes theirs from their ids. They expire when their parent does: whoever wanted its content gone by
        then wants theirs gone too.
        """
        ids = [new_id("file-") for _ in paths]
        rows: list[FileRow] = []
        try:
            for file_id, (path, word), made in zip(ids, paths, lineage(ids), strict=True):
                rows.append(self._row(parent, file_id, path, word, made))
            with self._database.session() as session:
                for row in rows:
                    FileRepo(session).add(row)
        except BaseException:
            for row in rows:
                self._blobs.delete(row.id)
            raise
        return rows

    def forget_copy(self, sha256: str) -> None:
        """Delete the local copy of a content, if there is one."""
        (self.copies_dir / sha256).unlink(missing_ok=True)

    def forget_copies(self, list_known: Callable[[], set[str]]) -> None:
        """Delete local copies of contents that are not among these digests, which are asked for last: what another
        server copies meanwhile stays."""
        copies = [path for path in self.copies_dir.glob("*") if path.suffix != ".tmp"]
        known = list_known()
        for path in copies:
            if path.name not in known:
                path.unlink(missing_ok=True)

    @property
    def copies_dir(self) -> Path:
        return self._settings.home / "cache" / "files"

    def _row(self, parent: FileRow, file_id: str, path: Path, word: str, lineage: dict[str, Any]) -> FileRow:
        writer = self._blobs.open_writer()
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(file, writer, CHUNK_BYTES)
        except BaseException:
            writer.abort()
            raise
        facts = writer.commit(file_id)
        return FileRow(
            id=file_id,
            created_at=unix_now_s(),
            bytes=facts.num_bytes,
            filename=derived_name(parent.filename, word),
            purpose=DATA_PURPOSE,
            status="processed",
            expires_at=parent.expires_at,
            sha256=facts.sha256,
            parent_id=parent.id,
            lineage=lineage,
        )
