"""The routes.

    POST /v1/completions, /v1/chat/completions    whole, or streamed as server-sent events
    GET  /v1/models, POST /tokenize               the names that requests may give; a prompt as tokens
    GET  /health, /metrics, /openapi.json         for machines
    GET  /, /live                                 for people: a page, and what it draws, step by step

With a key, every route but /health wants it, in the header `Authorization: Bearer KEY`; so does /live, which the page
reads with `fetch`. To a browser without a key, / answers 401 with the page itself, which asks for the key.

/live sends server-sent events, each one line of JSON. The first is
`{"server": {models, rows, cache_blocks, block_tokens, step_tokens, weights}}`; the others are `{"steps": [...]}`, each
step as `watching.Step.shown` makes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from jinja2 import TemplateError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, Response

from . import errors, replies
from .doors import DEFAULT_TIMEOUT_S, Door
from .driver import Driver, Wish
from .errors import JSON, ApiError
from .fields import ChatBody, CompletionBody, TokenizeBody, Wanted
from .loading import Served
from .metrics import Metrics
from .replies import ChatReply, CompletionReply, Reply, TokenTexts
from .streams import EventStream, chunks, unless_gone, whole
from .watching import Live, Step

PAGE = Path(__file__).resolve().parent / "page.html"
COMPLETION_TOKENS = 16  # what a completion gets that does not say how many it wants; a chat gets all that fit
STREAMS = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
TEXT = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
ALWAYS = errors.described({401: "the key", 408: "too slow", 413: "too large", 500: "a fault", 503: "full or stopping"})
WITH_BODY = errors.described({400: "a field is wrong", 404: "there is no such model"})
LEFT = 499  # nobody reads this status: the client has gone


@dataclass(frozen=True)
class Settings:
    """What the operator decides. `queue` answers wait beside those that run; times are in seconds."""

    queue: int = 256
    api_key: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S


class Service:
    """What the routes share: the driver, those who listen to it, and the prompts' tokenizer in a thread of its own."""

    def __init__(self, served: Served, settings: Settings) -> None:
        self.served, self.settings = served, settings
        engine = served.engine
        self.driver = Driver(engine, settings.queue, self.tell)
        self.metrics = Metrics(self.driver, served.name)
        self.live = Live(served.name, self.description(), engine.clock())
        self.texts = TokenTexts(served.tokenizer)
        self.tokenizing = ThreadPoolExecutor(1, "tokenizer")
        self.longest_token = max(map(len, served.tokenizer.get_vocab()))  # characters

    def description(self) -> dict[str, Any]:
        """The first event of /live."""
        scheduler = self.served.engine.scheduler
        return {
            "models": self.served.models,
            "rows": scheduler.max_rows,
            "cache_blocks": scheduler.blocks.count,
            "block_tokens": scheduler.blocks.block_tokens,
            "step_tokens": scheduler.step_tokens,
            "weights": self.served.weights,
        }

    def tell(self, step: Step) -> None:
        """What happened, to all who want to know."""
        self.metrics.tell(step)
        self.live.tell(step)

    def adapter(self, model: str) -> str | None:
        """The adapter of this name; `None` is the model alone. Raises ApiError (404): there is none."""
        if model not in self.served.models:
            message = f"there is no model {model!r}; there are {', '.join(map(repr, self.served.models))}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return None if model == self.served.name else model

    def check(self, body: Wanted, prompts: int) -> None:
        """Raises ApiError if what is wanted for so many prompts can never be had, or not now."""
        if body.stream_options is not None and not body.stream:
            raise ApiError(400, "stream_options go with stream: true only", param="stream_options")
        answers, most = prompts * body.answers, self.driver.most_open
        if answers > most:
            message = f"{prompts} prompts with {body.answers} answers each; at most {most} answers are taken at once"
            raise ApiError(400, message, param="n" if prompts == 1 else "prompt")
        self.driver.check_room(answers)

    async def ids(self, text: str, field: str = "prompt", special: bool = True) -> list[int]:
        """A prompt's tokens. Raises ApiError if the text is so long that it cannot fit, whatever its tokens are."""
        most = self.served.context * self.longest_token
        if len(text) > most:
            message = f"the prompt has {len(text)} characters; the context of {self.served.context} tokens holds {most}"
            raise ApiError(400, message, param=field, code="context_length_exceeded")
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(
            self.tokenizing, lambda: self.served.tokenizer(text, add_special_tokens=special)
        )
        return encoded["input_ids"]

    async def answer(self, request: Request, body: Wanted, wishes: list[Wish], reply: Reply, field: str) -> Response:
        """Have the wishes fulfilled, streamed or not. `field` holds the prompts."""
        try:
            call = await self.driver.submit(wishes, bool(body.stream))
        except (TypeError, ValueError) as error:
            raise from_engine(error, field) from error
        if body.stream:
            frames = chunks(call, reply, body.stream_options)
            return EventStream(frames, self.settings.timeout_s, lambda: self.driver.cancel(call))
        try:
            content = await unless_gone(request.receive, whole(call, reply))
        finally:
            self.driver.cancel(call)
        return JSON(content) if content else Response(status_code=LEFT)


def from_engine(error: Exception, field: str) -> ApiError:
    """What the engine refuses, as the client is told: of the sampling by its name, else of the prompt."""
    message = str(error).partition(": ")[2] if str(error).startswith("request ") else str(error)
    name = message.split(" ")[0]
    too_long = "context is" in message or "blocks" in message
    return ApiError(
        400,
        message,
        param=name if name in Wanted.model_fields else field,
        code="context_length_exceeded" if too_long else "invalid_value",
    )


def create_app(served: Served, settings: Settings) -> FastAPI:
    """The app; its engine's thread runs as long as the app's lifespan."""
    service = Service(served, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        service.driver.start()
        try:
            yield {"timeout_s": settings.timeout_s}
        finally:
            service.live.close()
            service.driver.stop()
            service.tokenizing.shutdown()

    title = f"A server for {served.name}"
    app = FastAPI(title=title, docs_url=None, redoc_url=None, lifespan=lifespan, responses=ALWAYS)
    app.state.service = service
    errors.install(app)
    app.add_middleware(Door, api_key=settings.api_key, timeout_s=settings.timeout_s, page=page)
    add_answers(app, service)
    add_lookups(app, service)
    add_watching(app, service)
    describe(app, served.models)
    return app


def add_answers(app: FastAPI, service: Service) -> None:
    """The routes that generate."""
    served, told = service.served, {**STREAMS, **WITH_BODY}

    @app.post("/v1/completions", response_model=replies.Completion, responses=told)
    async def completions(request: Request, body: CompletionBody) -> Response:
        adapter = service.adapter(body.model)
        samplings = body.sampling(body.max_tokens or COMPLETION_TOKENS, body.logprobs)
        service.check(body, len(body.prompts))
        prompts = [await service.ids(prompt) if isinstance(prompt, str) else prompt for prompt in body.prompts]
        wishes = [Wish(ids, sampling, adapter) for ids in prompts for sampling in samplings]
        reply = CompletionReply(body.model, service.texts, len(prompts))
        return await service.answer(request, body, wishes, reply, "prompt")

    @app.post("/v1/chat/completions", response_model=replies.ChatCompletion, responses=told)
    async def chat_completions(request: Request, body: ChatBody) -> Response:
        adapter = service.adapter(body.model)
        service.check(body, 1)
        if body.max_tokens and body.max_completion_tokens:
            message = "max_tokens and max_completion_tokens are two names of one thing; give one of them"
            raise ApiError(400, message, param="max_tokens")
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs go with logprobs: true only", param="top_logprobs")
        ids = await service.ids(chat_text(service, body), "messages", special=False)
        fits = max(1, served.context - len(ids))
        logprobs = body.top_logprobs or 0 if body.logprobs else None
        samplings = body.sampling(body.max_tokens or body.max_completion_tokens or fits, logprobs, served.chat_stop)
        wishes = [Wish(ids, sampling, adapter) for sampling in samplings]
        return await service.answer(request, body, wishes, ChatReply(body.model, service.texts, 1), "messages")


def chat_text(service: Service, body: ChatBody) -> str:
    """The messages as one prompt, as the model's chat template has them."""
    tokenizer = service.served.tokenizer
    if tokenizer.chat_template is None:
        message = "this model has no chat template: its folder holds no chat_template.jinja; use /v1/completions"
        raise ApiError(400, message, param="messages", code="no_chat_template")
    messages = [message.plain() for message in body.messages]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise ApiError(400, f"the model's chat template refuses: {error}", param="messages") from error


def add_lookups(app: FastAPI, service: Service) -> None:
    """The routes that tell what there is."""
    served = service.served

    @app.get("/v1/models", response_model=replies.ModelList)
    async def models() -> Response:
        common = {"object": "model", "created": served.created, "owned_by": "local", "max_model_len": served.context}
        cards = [
            {"id": name, "root": name, "parent": None if name == served.name else served.name, **common}
            for name in served.models
        ]
        return JSON({"object": "list", "data": cards})

    @app.post("/tokenize", response_model=replies.Tokens, responses=WITH_BODY)
    async def tokenize(body: TokenizeBody) -> Response:
        if body.model is not None:
            service.adapter(body.model)
        ids = await service.ids(body.prompt, special=body.add_special_tokens is not False)
        return JSON({"tokens": ids, "count": len(ids), "max_model_len": served.context})

    @app.get("/health", response_model=replies.Health)
    async def health() -> Response:
        if not service.driver.is_alive:
            raise ApiError(503, "the engine's thread has ended", code="engine_dead")
        if service.driver.draining:
            raise errors.server_full("the server is about to stop")
        return JSON({"status": "ok"})


def add_watching(app: FastAPI, service: Service) -> None:
    """The routes that show what happens."""

    @app.get("/metrics", response_class=Response, responses=TEXT)
    async def metrics() -> Response:
        return Response(service.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/live", response_class=Response, responses=STREAMS)
    async def live() -> Response:
        return EventStream(service.live.watch(), service.settings.timeout_s)

    @app.get("/", response_class=HTMLResponse)
    async def root() -> Response:
        return page(200)


def page(status: int) -> Response:
    """The page, or what to say where there is none."""
    if not PAGE.is_file():
        return HTMLResponse("<p>This server has no page; /openapi.json lists its routes.</p>", status)
    return HTMLResponse(PAGE.read_text(encoding="utf-8"), status)


def describe(app: FastAPI, models: list[str]) -> None:
    """Have /openapi.json name the models, and leave out the refusal (422) that is FastAPI's and never comes here."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for name in ("CompletionBody", "ChatBody"):
            schemas[name]["properties"]["model"]["enum"] = models
        return schema

    app.openapi = openapi
