"""FastAPI, Starlette and aiohttp take a decorated coroutine function where they take a coroutine function."""

# No `from __future__ import annotations`: FastAPI looks up names in annotations, and those of a test are its own.

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from warp_cache import cache, lru_cache

try:
    import httpx
    from aiohttp import test_utils, web
    from fastapi import BackgroundTasks, Depends, FastAPI
    from pydantic import BaseModel
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.endpoints import HTTPEndpoint
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ModuleNotFoundError as missing:
    pytest.skip(f"{missing.name} is not installed", allow_module_level=True)


def assert_on_event_loop() -> None:
    """A function that a framework does not know for a coroutine function runs in a thread of a pool instead."""
    asyncio.get_running_loop()
    assert threading.current_thread() is threading.main_thread()


def get(app: Any, *paths: str) -> list[Any]:
    """What the application answers to requests that are made at once."""

    async def request() -> list[Any]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            responses = await asyncio.gather(*map(client.get, paths))
        return [response.raise_for_status().json() for response in responses]

    return asyncio.run(request())


def get_in_turn(app: Any, *paths: str) -> list[Any]:
    return [get(app, path)[0] for path in paths]


@cache
async def looked_up(key: str) -> dict[str, str]:
    assert_on_event_loop()
    await asyncio.sleep(0.1)
    return {"key": key}


@pytest.fixture(autouse=True)
def _empty() -> None:
    looked_up.cache_clear()


# FastAPI


class Answer(BaseModel):
    n: int
    power: int


def test_fastapi_endpoint() -> None:
    app = FastAPI()

    @app.get("/powers/{n}")
    @cache
    async def power(n: int, exponent: int = 2) -> Answer:
        """A power of a number."""
        assert_on_event_loop()
        return Answer(n=n, power=n**exponent)

    answers = get_in_turn(app, "/powers/3", "/powers/3?exponent=2", "/powers/3?exponent=3", "/powers/3")
    assert answers == [{"n": 3, "power": 9}, {"n": 3, "power": 9}, {"n": 3, "power": 27}, {"n": 3, "power": 9}]
    assert power.cache_info()[:2] == (2, 2)

    operation = app.openapi()["paths"]["/powers/{n}"]["get"]
    assert operation["description"] == "A power of a number."
    assert [(parameter["name"], parameter["in"]) for parameter in operation["parameters"]] == [
        ("n", "path"),
        ("exponent", "query"),
    ]


def test_fastapi_validates_before_the_cache_sees_a_call() -> None:
    app = FastAPI()

    @app.get("/{n}")
    @cache
    async def double(n: int) -> int:
        return 2 * n

    with pytest.raises(httpx.HTTPStatusError, match="422"):
        get(app, "/two")
    assert get(app, "/2") == [4]
    assert double.cache_info()[:2] == (0, 1)


def test_fastapi_response_model() -> None:
    app = FastAPI()

    @app.get("/{n}", response_model=Answer)
    @cache(ttl=60)
    async def square(n: int):
        return {"n": n, "power": n * n, "secret": "left out"}

    assert get_in_turn(app, "/4", "/4") == [{"n": 4, "power": 16}] * 2
    assert square.cache_info()[:2] == (1, 1)


def test_fastapi_runs_concurrent_requests_once() -> None:
    app = FastAPI()

    @app.get("/{n}")
    @cache
    async def slow(n: int) -> int:
        await asyncio.sleep(0.1)
        return n

    assert get(app, *["/1"] * 10, "/2") == [1] * 10 + [2]
    assert slow.cache_info()[:2] == (9, 2)


def test_fastapi_endpoint_that_raises() -> None:
    app = FastAPI()
    calls = []

    @app.get("/{n}")
    @cache
    async def fails(n: int) -> None:
        calls.append(n)
        await asyncio.sleep(0.1)
        raise ArithmeticError("no")

    for _ in range(2):
        with pytest.raises(ArithmeticError, match="no"):
            get(app, "/1", "/1")
    assert calls == [1, 1]


class Settings:
    def __init__(self, unit: str) -> None:
        self.unit = unit

    @cache
    async def label(self, n: int) -> str:
        assert_on_event_loop()
        return f"{n} {self.unit}"


@cache
async def scaled(n: int, factor: int = 10) -> int:
    assert_on_event_loop()
    return n * factor


@pytest.mark.parametrize(
    ("dependency", "answer"),
    [
        pytest.param(scaled, 50, id="function"),
        pytest.param(functools.partial(scaled, factor=3), 15, id="partial"),
        pytest.param(cache(functools.partial(scaled, factor=3)), 15, id="cached partial"),
        pytest.param(Settings("km").label, "5 km", id="method"),
        pytest.param(functools.partial(Settings("km").label), "5 km", id="partial of a method"),
        pytest.param(cache(Settings("m").label), "5 m", id="cached method"),
    ],
)
def test_fastapi_dependency(dependency: Callable[..., Any], answer: object) -> None:
    app = FastAPI()

    @app.get("/{n}")
    async def endpoint(value: Annotated[Any, Depends(dependency)]) -> Any:
        return value

    assert get_in_turn(app, "/5", "/5") == [answer] * 2


def test_fastapi_shares_a_dependency_between_requests() -> None:
    app = FastAPI()
    connections = []

    @cache
    async def connection() -> list[str]:
        connections.append("open")
        await asyncio.sleep(0.1)
        return connections

    @app.get("/a")
    async def one(value: Annotated[list[str], Depends(connection)]) -> int:
        return len(value)

    @app.get("/b")
    @cache
    async def cached(n: int = 1) -> int:
        return n + len(await connection())

    assert get(app, "/a", "/b", "/a", "/b") == [1, 2, 1, 2]
    assert connection.cache_info()[:2] == (2, 1)


def test_fastapi_background_task() -> None:
    app = FastAPI()
    done = []

    @cache
    async def report(n: int) -> None:
        assert_on_event_loop()
        done.append(n)

    @app.get("/{n}")
    async def endpoint(n: int, tasks: BackgroundTasks) -> int:
        tasks.add_task(report, n)
        return n

    assert get_in_turn(app, "/1", "/1", "/2") == [1, 1, 2]
    assert done == [1, 2]


# Starlette


class Pages:
    @cache
    async def show(self, request: Request) -> Response:
        assert_on_event_loop()
        return JSONResponse(await looked_up(request.path_params["key"]))


class Page(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return JSONResponse(await looked_up(request.path_params["key"]))


class CachedPage(HTTPEndpoint):
    @cache
    async def get(self, request: Request) -> Response:
        assert_on_event_loop()
        return JSONResponse(await looked_up(request.path_params["key"]))


async def page(request: Request) -> Response:
    return JSONResponse(await looked_up(request.path_params["key"]))


@pytest.mark.parametrize(
    "endpoint",
    [
        # Starlette calls functions and methods with a request, and takes other callables for ASGI applications. A cache
        # would not be worth it here: no request equals another.
        pytest.param(page, id="function that calls a decorated one"),
        pytest.param(cache(page), id="decorated function"),
        pytest.param(lru_cache(page), id="decorated function, lru_cache"),
        pytest.param(Pages().show, id="decorated method"),
        pytest.param(Page, id="class"),
        pytest.param(CachedPage, id="class with a decorated method"),
    ],
)
def test_starlette_endpoint(endpoint: Any) -> None:
    app = Starlette(routes=[Route("/{key}", endpoint)])
    assert get(app, "/a", "/b", "/a") == [{"key": "a"}, {"key": "b"}, {"key": "a"}]
    assert looked_up.cache_info()[:2] == (1, 2)


def test_starlette_background_task() -> None:
    async def endpoint(request: Request) -> Response:
        return JSONResponse("sent", background=BackgroundTask(looked_up, request.path_params["key"]))

    app = Starlette(routes=[Route("/{key}", endpoint)])
    assert get_in_turn(app, "/a", "/a") == ["sent", "sent"]
    assert looked_up.cache_contains("a")
    assert looked_up.cache_info()[:2] == (1, 1)


# aiohttp


def get_aiohttp(app: web.Application, *paths: str) -> list[Any]:
    async def request() -> list[Any]:
        async with test_utils.TestClient(test_utils.TestServer(app)) as client:
            responses = await asyncio.gather(*map(client.get, paths))
            return [await response.json() for response in responses]

    return asyncio.run(request())


def test_aiohttp_runs_concurrent_requests_once() -> None:
    # Requests cannot be hashed, so it is not the handler that is cached, but what it calls.
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(await looked_up(request.match_info["key"]))

    app = web.Application()
    app.router.add_get("/{key}", handler)
    assert get_aiohttp(app, "/a", "/b", "/a", "/a") == [{"key": key} for key in "abaa"]
    assert looked_up.cache_info()[:2] == (2, 2)


def test_aiohttp_view() -> None:
    class View(web.View):
        async def get(self) -> web.Response:
            return web.json_response(await looked_up(self.request.match_info["key"]))

    app = web.Application()
    app.router.add_view("/{key}", View)
    assert get_aiohttp(app, "/a", "/a") == [{"key": "a"}] * 2
    assert looked_up.cache_info()[:2] == (1, 1)


def test_aiohttp_knows_a_decorated_function_for_a_coroutine_function() -> None:
    @cache
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    # Any other callable it warns of, and wraps.
    assert app.router.add_get("/", handler).handler is handler


def test_aiohttp_start_and_end_of_the_application() -> None:
    calls = []

    @cache
    async def connect(app: web.Application) -> None:
        assert_on_event_loop()
        calls.append(app)

    app = web.Application()
    app.on_startup.append(connect)
    app.on_cleanup.append(connect)
    get_aiohttp(app)
    assert calls == [app]
