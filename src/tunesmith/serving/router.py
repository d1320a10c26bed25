"""One running engine for each set of weights in use: loaded on demand, shared, stopped when idle or in the way."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psutil

from tunesmith.core.clock import monotonic_s
from tunesmith.core.errors import Unavailable
from tunesmith.core.log import get_logger
from tunesmith.core.settings import Settings
from tunesmith.serving.engines.base import Engine, EngineStatus
from tunesmith.serving.engines.llama_cpp import LlamaCppProcess
from tunesmith.serving.loading import context_tokens, expected_bytes, load_engine
from tunesmith.serving.registry import Registry, ServedModel

log: logging.Logger = get_logger(__name__)

DEATH_NOTICE_S = 1.0
"""A broken connection and the end of the process that broke it are seen this far apart at most."""


class _Loaded:
    """One set of weights: being loaded, or answering. Belongs to the event loop; no lock is needed."""

    def __init__(self, model: ServedModel, loading: asyncio.Task[LlamaCppProcess]):
        self.model = model
        self.loading = loading
        self.names = {model.name}
        self.num_users = 0
        self.last_used_s = monotonic_s()

    @property
    def process(self) -> LlamaCppProcess | None:
        """The running child; None while it loads and when it could not be loaded."""
        is_loaded = self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None
        return self.loading.result() if is_loaded else None

    @property
    def is_broken(self) -> bool:
        """It could not be loaded, or has ended by itself."""
        return self.loading.done() and (self.process is None or not self.process.is_alive)

    @property
    def idle_s(self) -> float:
        return 0.0 if self.num_users else monotonic_s() - self.last_used_s


class Router:
    """Leases engines. Construct anywhere; use from one event loop, between ``start`` and ``stop``."""

    def __init__(self, settings: Settings, registry: Registry):
        self._settings = settings
        self._registry = registry
        self._loaded: dict[str, _Loaded] = {}
        self._released = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._sweeper = asyncio.create_task(self._sweep(), name="engine sweeper")

    async def stop(self) -> None:
        """End every engine, chats in progress included."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        await asyncio.gather(*(self._end(loaded) for loaded in list(self._loaded.values())))
        await asyncio.gather(*self._ending)

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Engine]:
        """An engine that answers for ``name``, loaded if need be, and not stopped before the block is left.

        Raises NotFound for an unknown name; Unavailable when the model cannot be loaded (``engine_start_failed``,
        ``parity_failed``) or every engine stays in use (``engines_busy``). An ``httpx.TransportError`` in the block
        becomes Unavailable as well: ``engine_died`` or ``engine_error``.
        """
        model = await asyncio.to_thread(self._registry.resolve, name)
        loaded = await self._acquire(model)
        process = loaded.loading.result()
        try:
            yield Engine(process.base_url, process.headers, model, context_tokens(self._settings, model))
        except httpx.TransportError as error:
            raise await _explain(error, process, model) from error
        finally:
            self._release(loaded)

    async def forget(self, name: str) -> None:
        """A model was deleted: end its engine, unless another name uses the same weights."""
        for loaded in list(self._loaded.values()):
            loaded.names.discard(name)
            if not loaded.names and loaded.num_users == 0:
                await self._end(loaded)

    def status(self) -> list[EngineStatus]:
        return [_status(loaded) for loaded in self._loaded.values()]

    async def _acquire(self, model: ServedModel) -> _Loaded:
        deadline_s = monotonic_s() + self._settings.engine_start_timeout_s
        while True:
            loaded = self._usable(model.fingerprint) or await self._begin(model, deadline_s)
            if loaded is not None:
                return await self._join(loaded, model)

    def _usable(self, fingerprint: str) -> _Loaded | None:
        loaded = self._loaded.get(fingerprint)
        if loaded is not None and loaded.is_broken:
            log.warning("The engine of %s has ended; it is started again", loaded.model.name)
            del self._loaded[fingerprint]
            return None
        return loaded

    async def _join(self, loaded: _Loaded, model: ServedModel) -> _Loaded:
        """Count the caller as a user before waiting, so that nobody stops what it waits for."""
        loaded.num_users += 1
        loaded.names.add(model.name)
        try:
            await asyncio.shield(loaded.loading)
        except BaseException:
            self._release(loaded)
            raise
        return loaded

    def _release(self, loaded: _Loaded) -> None:
        """Never waits: in a request whose client has gone, every wait would be cancelled."""
        loaded.num_users -= 1
        loaded.last_used_s = monotonic_s()
        if loaded.is_broken and self._loaded.get(loaded.model.fingerprint) is loaded:
            del self._loaded[loaded.model.fingerprint]
        self._released.set()

    async def _begin(self, model: ServedModel, deadline_s: float) -> _Loaded | None:
        """Start loading if there is room. None when room had to be made first: look again, much may have changed."""
        if self._has_room(model):
            loading = asyncio.create_task(load_engine(self._settings, model), name=f"load {model.name}")
            loading.add_done_callback(_note_failure)
            loaded = self._loaded[model.fingerprint] = _Loaded(model, loading)
            return loaded
        idle = [loaded for loaded in self._loaded.values() if loaded.num_users == 0]
        if idle:
            await self._end(min(idle, key=lambda loaded: loaded.last_used_s))
        else:
            await self._wait_for_release(model, deadline_s)
        return None

    def _has_room(self, model: ServedModel) -> bool:
        """Whether one more engine keeps both limits. The first engine needs only memory enough for itself."""
        if len(self._loaded) >= self._settings.max_engines:
            return False
        free_after = int(psutil.virtual_memory().available) - expected_bytes(self._settings, model)
        return free_after >= (self._settings.min_free_memory_bytes if self._loaded else 0)

    async def _wait_for_release(self, model: ServedModel, deadline_s: float) -> None:
        if not self._loaded:
            raise Unavailable(
                f"There is not enough free memory to load `{model.name}`.",
                code="out_of_memory",
                mend="Stop other programs, or lower TUNESMITH_ENGINE_PARALLEL or TUNESMITH_ENGINE_CONTEXT_TOKENS.",
            )
        try:
            self._released.clear()
            await asyncio.wait_for(self._released.wait(), max(0.0, deadline_s - monotonic_s()))
        except TimeoutError:
            raise Unavailable(
                f"Every engine is in use, and none became free for `{model.name}`.",
                code="engines_busy",
                mend="Try again later, or raise TUNESMITH_MAX_ENGINES.",
            ) from None

    async def _end(self, loaded: _Loaded) -> None:
        if self._loaded.get(loaded.model.fingerprint) is loaded:
            del self._loaded[loaded.model.fingerprint]
        ending = asyncio.create_task(_stop(loaded), name=f"end {loaded.model.name}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.shield(ending)  # a caller that is cancelled meanwhile leaves no half-stopped child

    async def _sweep(self) -> None:
        """Every so often: end engines that nobody has used for a while, drop those that ended by themselves."""
        while True:
            await asyncio.sleep(min(5.0, self._settings.engine_idle_s / 4))
            for loaded in list(self._loaded.values()):
                if self._is_unwanted(loaded):
                    log.info("The engine of %s is stopped", loaded.model.name)
                    await self._end(loaded)

    def _is_unwanted(self, loaded: _Loaded) -> bool:
        is_over = loaded.is_broken or not loaded.names or loaded.idle_s > self._settings.engine_idle_s
        return loaded.num_users == 0 and is_over


async def _stop(loaded: _Loaded) -> None:
    loaded.loading.cancel()
    await asyncio.wait([loaded.loading])
    if loaded.process is not None:
        await loaded.process.stop()


async def _explain(error: httpx.TransportError, process: LlamaCppProcess, model: ServedModel) -> Unavailable:
    if await process.wait(DEATH_NOTICE_S):
        return Unavailable(f"The engine of `{model.name}` ended.", code="engine_died", mend="Try again.")
    reason = str(error) or type(error).__name__
    return Unavailable(
        f"The engine of `{model.name}` does not answer: {reason}.", code="engine_error", mend="Try again."
    )


def _note_failure(loading: asyncio.Task[LlamaCppProcess]) -> None:
    """Read the outcome even if every waiter has gone, so that asyncio does not complain about it."""
    if not loading.cancelled() and (error := loading.exception()) is not None:
        log.warning("%s", error)


def _status(loaded: _Loaded) -> EngineStatus:
    process = loaded.process
    return EngineStatus(
        names=tuple(sorted(loaded.names)),
        fingerprint=loaded.model.fingerprint,
        state="failed" if loaded.is_broken else "loading" if process is None else "ready",
        num_users=loaded.num_users,
        idle_s=loaded.idle_s,
        pid=None if process is None else process.pid,
        resident_bytes=0 if process is None else process.resident_bytes,
    )
