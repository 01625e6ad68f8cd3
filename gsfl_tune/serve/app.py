"""The routes of the server, as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle, Prediction
from gsfl_tune.export.engine import Engine, engine_runtime, named
from gsfl_tune.serve.admission import Admission, Ticket
from gsfl_tune.serve.batcher import Batcher
from gsfl_tune.serve.body import Body, Part
from gsfl_tune.serve.explainer import Explainer
from gsfl_tune.serve.host_check import HostCheck
from gsfl_tune.serve.images import FORMATS, decode
from gsfl_tune.serve.limits import Limits
from gsfl_tune.serve.metrics import Metrics
from gsfl_tune.serve.model import Model, Question, Threads
from gsfl_tune.serve.page import page, wants_page
from gsfl_tune.serve.page import routes as page_routes
from gsfl_tune.serve.problems import Problem

_TOP = 5
_NEIGHBOURS = 6
_ROUTES = frozenset({"/", "/predict", "/explain", "/neighbours", "/health", "/metrics"})
_log = logging.getLogger("gsfl_tune.serve")


class Service:
    """Holds what all requests share: model, batcher, decoding threads, limits and counters.

    Args:
        bundle: The bundle to serve.
        limits: Limits of the server.
        threads: Number of threads for each task.
        engine: Who answers.

    Attributes:
        bundle: The bundle that answers. Where OpenVINO does, it holds no PyTorch network.
        engine: Name of who answers.
    """

    def __init__(
        self, bundle: Bundle, limits: Limits, threads: Threads, engine: Engine | None = None
    ) -> None:
        engine = engine or Engine()
        self.limits = limits
        self.admission = Admission(limits.queue, limits.memory)
        self.metrics = Metrics(_ROUTES, lambda: self.admission.taken)
        self.explainer = Explainer(bundle, limits.max_pixels)
        runtime = engine_runtime(bundle, engine, threads.model * threads.batches)
        if runtime is not None:
            bundle = replace(bundle, runtime=runtime)
            self.explainer.release(bundle)
        self.bundle = bundle
        self.model = Model(bundle, self.metrics.batch)
        if runtime is None:
            self.model.quicken(engine.precision)
        self.engine = named(bundle.runtime, engine)
        self._threads = threads
        self._decoders = ThreadPoolExecutor(threads.decode, thread_name_prefix="decode")
        # Maps and neighbours are for people: one at a time, beside the predictions.
        self._asides = ThreadPoolExecutor(1, "aside", partial(torch.set_num_threads, threads.model))
        self._batcher: Batcher[Question, Prediction] | None = None

    def start(self) -> None:
        """Starts batching in the running event loop."""
        self._batcher = Batcher(
            self.model.answer,
            most=self.limits.max_batch,
            wait=self.limits.max_wait,
            at_once=self._threads.batches,
            begin=partial(torch.set_num_threads, self._threads.model),
        )
        self._batcher.start()

    async def stop(self) -> None:
        """Stops the threads."""
        if self._batcher is not None:
            await self._batcher.stop()
        self._decoders.shutdown()
        self._asides.shutdown()

    async def aside(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Does the work of a map or of neighbours in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._asides, work)

    async def predict(self, part: Part, top: int, threshold: float | None) -> dict[str, Any]:
        """Decodes and predicts one image.

        Args:
            part: The image.
            top: Number of classes.
            threshold: Probability below which it is ``unknown``.

        Raises:
            Problem: If it cannot be read.
        """
        assert self._batcher is not None
        loop = asyncio.get_running_loop()
        try:
            square = await loop.run_in_executor(
                self._decoders,
                decode,
                part.data,
                self.bundle.preprocessing,
                self.limits.max_pixels,
            )
            prediction = await self._batcher.submit(Question(square, top))
        except Problem as problem:
            self.metrics.image(problem.error)
            raise
        except Exception:
            self.metrics.image("failed")
            raise
        self.metrics.image("predicted")
        content: dict[str, Any] = {
            "name": part.name,
            "classes": prediction.classes,
            "probabilities": prediction.probabilities,
        }
        if threshold is not None:
            content["unknown"] = prediction.probabilities[0] < threshold
        return content


def create_app(
    service: Service,
    on_start: Callable[[], None] = lambda: None,
    hosts: frozenset[str] | None = None,
) -> Callable[..., Any]:
    """Makes the ASGI application of a service.

    Args:
        service: The service that answers.
        on_start: Called when it is ready.
        hosts: Hosts that requests may be sent to, see `own_hosts`; None for any.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        on_start()
        yield
        await service.stop()

    async def predict(request: Request) -> Response:
        return await _predict(service, request)

    async def explain(request: Request) -> Response:
        name = request.query_params.get("class")
        return await _aside(service, request, lambda data: service.explainer.explain(data, name))

    async def neighbours(request: Request) -> Response:
        def find(data: bytes) -> dict[str, Any]:
            count = _count(request, "count", _NEIGHBOURS, 100)
            return service.explainer.neighbours(data, count)

        return await _aside(service, request, find)

    async def index(request: Request) -> Response:
        if wants_page(request):
            return page()
        return JSONResponse(_description(service), headers={"Vary": "Accept"})

    async def health(request: Request) -> Response:
        trouble = service.model.trouble
        if trouble is not None:
            return JSONResponse({"status": "failing", "reason": trouble}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/predict", predict, methods=["POST"]),
            Route("/explain", explain, methods=["POST"]),
            Route("/neighbours", neighbours, methods=["POST"]),
            *page_routes(),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
        exception_handlers={Problem: _refused, HTTPException: _http, Exception: _failed},
    )
    return _Measured(app if hosts is None else HostCheck(app, hosts), service.metrics)


async def _predict(service: Service, request: Request) -> Response:
    with Ticket(service.admission) as ticket:
        body = Body(request, service.limits, ticket)
        try:
            ticket.take()
            top, threshold = _top(request), _threshold(request, service.bundle)
            parts = await body.images()
            ticket.take(len(parts) - 1)
        except ClientDisconnect:
            return Response(status_code=400)
        except Problem:
            await body.discard()
            raise
        answers = await asyncio.gather(
            *(service.predict(part, top, threshold) for part in parts), return_exceptions=True
        )
        return _answer(parts, answers)


async def _aside(
    service: Service, request: Request, work: Callable[[bytes], dict[str, Any]]
) -> Response:
    """Answers a request about one image."""
    with Ticket(service.admission) as ticket:
        body = Body(request, service.limits, ticket)
        try:
            ticket.take()
            parts = await body.images()
        except ClientDisconnect:
            return Response(status_code=400)
        except Problem:
            await body.discard()
            raise
        if len(parts) > 1:
            raise Problem(413, "too_many_images", f"{request.url.path} takes one image at a time")
        return JSONResponse(await service.aside(partial(work, parts[0].data)))


def _answer(parts: list[Part], answers: list[Any]) -> Response:
    """Returns 200 if an image was predicted, else the status of the first image's problem."""
    predictions: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for part, answer in zip(parts, answers, strict=True):
        if isinstance(answer, Problem):
            problems.append(answer)
            predictions.append({"name": part.name, **answer.to_json()})
        elif isinstance(answer, BaseException):
            if not isinstance(answer, Exception):
                raise answer
            _log.error("an image could not be predicted", exc_info=answer)
            problems.append(Problem(500, "internal", "the model failed; see the server's log"))
            predictions.append({"name": part.name, **problems[-1].to_json()})
        else:
            predictions.append(answer)
    content: dict[str, Any] = {"predictions": predictions, "refused": len(problems)}
    if len(problems) < len(parts):
        return JSONResponse(content)
    first = problems[0]
    if len(parts) > 1:
        return JSONResponse({**first.to_json(), **content}, first.status)
    raise first


def _top(request: Request) -> int:
    return _count(request, "top", _TOP, 10_000)


def _count(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text[:9]) <= most:
        raise Problem(400, "bad_parameter", f"{name} is {text[:20]!r}, allowed are 1 to {most}")
    return int(text)


def _threshold(request: Request, bundle: Bundle) -> float | None:
    text = request.query_params.get("threshold")
    if text is None:
        return None
    try:
        return bundle.threshold(text[:20], "threshold")
    except UserError as error:
        raise Problem(400, "bad_parameter", str(error)) from error


def _own_threshold(bundle: Bundle) -> float | None:
    """Returns the probability below which the bundle says ``unknown``; None if it has none."""
    return bundle.threshold("auto") if bundle.calibration.get("rejections") else None


def _description(service: Service) -> dict[str, Any]:
    """Describes the bundle and the routes, for requests to the root."""
    bundle, limits = service.bundle, service.limits
    winner = bundle.metrics.get("winner") or {}
    return {
        "name": bundle.config.get("name"),
        "gsfl_tune": version("gsfl-tune"),
        "classes": bundle.classes,
        "image_size": bundle.preprocessing.image_size,
        "engine": service.engine,
        "test": winner.get("test"),
        "calibration": bundle.calibration or None,
        "threshold": _own_threshold(bundle),
        "maps": service.explainer.no_maps is None,
        "neighbours": service.explainer.no_neighbours is None,
        "limits": {
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
            "max_images": limits.max_images,
            "formats": list(FORMATS),
        },
        "routes": {
            "POST /predict?top=5&threshold=auto": "an image as the body, or several as "
            "multipart/form-data",
            "POST /explain?class=NAME": "a map of the evidence for a class (default: the most "
            "probable one) over one image",
            f"POST /neighbours?count={_NEIGHBOURS}": "the nearest training images, where the "
            "bundle was exported with them",
            "GET /": "this description; for a browser, a page",
            "GET /health": "200 while the model answers, else 503",
            "GET /metrics": "counters for Prometheus",
        },
    }


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    return JSONResponse(problem.to_json(), problem.status, headers)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {
        404: f"no such route; there are {', '.join(sorted(_ROUTES))}",
        405: f"{request.method} is not supported by {request.url.path}",
    }
    content = {
        "error": str(error.detail).lower().replace(" ", "_"),
        "reason": reasons.get(error.status_code, str(error.detail)),
    }
    return JSONResponse(content, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    # The server logs it.
    reason = "this request failed; see the server's log"
    return JSONResponse({"error": "internal", "reason": reason}, 500)


class _Measured:
    """Counts requests and their time for all routes."""

    def __init__(self, app: Callable[..., Any], metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.request(scope["path"], status, time.perf_counter() - started)
