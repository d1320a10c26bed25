"""Leases on real engines: loaded once, shared, replaced when dead, stopped when idle or in the way; parity first."""

import asyncio
import json
import os
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from serving_names import MODEL, TUNED, Run

from tunesmith.core.errors import NotFound, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.serving.engines.base import Engine
from tunesmith.serving.registry import Registry
from tunesmith.serving.router import Router
from tunesmith.store.repos.models import ModelRepo

HI = [{"role": "user", "content": "Say only: hi"}]


@asynccontextmanager
async def running(settings: Settings, registry: Registry):
    router = Router(settings, registry)
    await router.start()
    try:
        yield router
    finally:
        await router.stop()
        assert router.status() == []


async def answer(engine: Engine) -> str:
    async with httpx.AsyncClient(headers=engine.headers, timeout=120) as client:
        body = {"messages": HI, "temperature": 0, "max_tokens": 8}
        response = await client.post(engine.base_url + "/v1/chat/completions", json=body)
    return response.json()["choices"][0]["message"]["content"]


async def ask(router: Router, name: str) -> str:
    async with router.lease(name) as engine:
        return await answer(engine)


async def ask_while_it_is_killed(router: Router, pid: int) -> None:
    async with router.lease(MODEL) as engine:
        assert engine.fingerprint == "fp_b179c9523d0e"
        os.kill(pid, signal.SIGKILL)
        await answer(engine)


async def until(is_so) -> None:
    deadline_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


def test_callers_at_once_share_one_engine_and_a_dead_one_is_replaced(run: Run, settings, registry) -> None:
    async def story() -> None:
        async with running(settings, registry) as router:
            assert await asyncio.gather(*(ask(router, MODEL) for _ in range(3))) == ["Hi."] * 3
            (first,) = router.status()
            assert (first.names, first.state, first.num_users) == ((MODEL,), "ready", 0)
            with pytest.raises(Unavailable) as died:
                await ask_while_it_is_killed(router, first.pid)
            assert died.value.code == "engine_died"
            assert await ask(router, MODEL) == "Hi."
            (second,) = router.status()
            assert second.pid != first.pid
        assert not psutil.pid_exists(second.pid)

    run(story())


def test_an_idle_engine_is_stopped(run: Run, settings, registry) -> None:
    async def story() -> None:
        async with running(replace(settings, engine_idle_s=0.2), registry) as router:
            async with router.lease(MODEL):
                (status,) = router.status()
                await asyncio.sleep(0.4)
                assert psutil.pid_exists(status.pid), "an engine in use was stopped"
            await until(lambda: not router.status())
            await until(lambda: not psutil.pid_exists(status.pid))

    run(story())


def test_a_router_stops_while_an_idle_engine_is_being_stopped(run: Run, settings, registry) -> None:
    async def story() -> int:
        async with asyncio.timeout(30) as limit, running(replace(settings, engine_idle_s=0.2), registry) as router:
            await ask(router, MODEL)
            (status,) = router.status()
            while router.status():
                await asyncio.sleep(0)  # stop in the very moment in which it is no longer listed but has not ended yet
        assert not limit.expired()
        return status.pid

    assert not psutil.pid_exists(run(story()))


def test_unknown_and_deleted_names_are_not_found(run: Run, settings, registry, database, tuned_dir: Path) -> None:
    with database.session() as session:
        ModelRepo(session).delete(TUNED)

    async def story() -> None:
        async with running(settings, registry) as router:
            for name in ("gpt-9", TUNED, ""):
                with pytest.raises(NotFound) as missing:
                    await ask(router, name)
                assert missing.value.code == "model_not_found"
                assert str(missing.value) == f"The model `{name}` does not exist or you do not have access to it."
            assert router.status() == []

    run(story())


def test_a_tuned_model_takes_the_place_of_the_least_recently_used(
    run: Run, settings, registry, tuned_dir: Path
) -> None:
    async def story() -> None:
        async with running(replace(settings, max_engines=1), registry) as router:
            assert await ask(router, MODEL) == "Hi."
            async with router.lease(TUNED) as engine:
                assert [status.names for status in router.status()] == [(TUNED,)]
                assert engine.fingerprint == registry.resolve(TUNED).fingerprint != registry.resolve(MODEL).fingerprint
                await answer(engine)
                waiting = asyncio.create_task(ask(router, MODEL))
                await asyncio.sleep(0.3)
                assert [status.names for status in router.status()] == [(TUNED,)]
            assert await waiting == "Hi."
            assert [status.names for status in router.status()] == [(MODEL,)]
            async with router.lease(MODEL):
                router._settings = replace(router._settings, engine_start_timeout_s=0.2)
                with pytest.raises(Unavailable) as busy:
                    await ask(router, TUNED)
                assert busy.value.code == "engines_busy"

    run(story())
    certificate = json.loads((tuned_dir / "serve" / "parity_certificate.json").read_text())
    assert certificate["passed"]
    assert certificate["num_rows"] == certificate["num_same_first_token"] == 4


def test_a_model_that_differs_from_the_trainer_is_not_served(run: Run, settings, registry, tuned_dir: Path) -> None:
    rows = json.loads((tuned_dir / "parity.json").read_text())
    for row in rows["rows"]:
        row["top"] = [{"token_id": token["token_id"] + 1, "logprob": token["logprob"]} for token in row["top"]]
    (tuned_dir / "parity.json").write_text(json.dumps(rows))

    async def story() -> None:
        async with running(settings, registry) as router:
            with pytest.raises(Unavailable) as refused:
                await ask(router, TUNED)
            assert refused.value.code == "parity_failed"
            assert router.status() == []

    run(story())
    assert not json.loads((tuned_dir / "serve" / "parity_certificate.json").read_text())["passed"]


def test_a_deleted_models_engine_ends_with_its_last_lease(run: Run, settings, registry) -> None:
    async def story() -> None:
        async with running(replace(settings, engine_idle_s=4), registry) as router:
            async with router.lease(MODEL) as engine:
                await router.forget(MODEL)
                assert await answer(engine) == "Hi."
            await router.forget(MODEL)
            assert router.status() == []

    run(story())
