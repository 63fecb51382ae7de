"""Refusals in the one shape that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .fields import UNSUPPORTED

MEDIA_TYPE = "application/json"
LONGEST_MESSAGE = 600  # characters; what a client sent stands in some messages and may be long


class ApiError(Exception):
    """A refusal: an HTTP status, and what the client is told."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The refusal as it goes out."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        message = str(self)[:LONGEST_MESSAGE]
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}


class ErrorDetail(BaseModel):
    """What is wrong, which field is to blame, and a word for it that does not change."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """A refusal, as /openapi.json describes it."""

    error: ErrorDetail


def described(statuses: Mapping[int, str]) -> dict[int, dict[str, Any]]:
    """Refusals with these statuses, as FastAPI puts them into /openapi.json."""
    return {status: {"model": ErrorReply, "description": what} for status, what in statuses.items()}


class JSON(Response):
    """JSON in ASCII: escapes stand for all other characters, also for those that have no UTF-8."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(content: Any) -> bytes:
    """One line of JSON in ASCII. NaN and infinity, which are no JSON, raise ValueError."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def refusal(error: ApiError) -> JSON:
    """The response that says it."""
    return JSON(error.body, error.status, error.headers)


def server_full(message: str) -> ApiError:
    """503: not now, but soon."""
    return ApiError(503, message, code="overloaded", headers={"Retry-After": "1"})


def engine_failed() -> ApiError:
    """500: the forward of a step raised; what it raised is in the server's log only."""
    return ApiError(500, "the model failed while it computed this answer", code="forward_failed")


def install(app: FastAPI) -> None:
    """Have every refusal of the app, whoever makes it, come in this shape."""

    async def from_api(_: Request, error: ApiError) -> JSON:
        return refusal(error)

    async def from_body(_: Request, error: RequestValidationError) -> JSON:
        return refusal(from_validation(error.errors()))

    async def from_fault(_: Request, __: Exception) -> JSON:
        return refusal(ApiError(500, "the server has a fault; its log says which", code="internal"))

    app.add_exception_handler(ApiError, from_api)
    app.add_exception_handler(RequestValidationError, from_body)
    app.add_exception_handler(HTTPException, _from_http)
    app.add_exception_handler(Exception, from_fault)


def from_validation(errors: list[dict[str, Any]]) -> ApiError:
    """400, naming the first field that is wrong, what was given and what is allowed."""
    error = errors[0]
    path, kind = error["loc"], error["type"]
    if kind == "json_invalid":
        return ApiError(
            400, f"the body is no JSON: {error['ctx']['error']} at character {path[1]}", code="invalid_json"
        )
    if kind == "string_unicode" and len(path) < 2:
        return ApiError(400, "the name of a field holds half of a character (a lone surrogate)", code="invalid_json")
    if len(path) < 2:
        return ApiError(400, "the body must be a JSON object, with the header Content-Type: application/json")
    name, where = str(path[1]), ".".join(map(str, path[1:]))
    if name in UNSUPPORTED:
        message, code = f"{name} is not supported here; leave it out", "unsupported_parameter"
    elif kind == "extra_forbidden":
        message, code = f"{where} is no field that this server knows; leave it out", "unknown_parameter"
    elif kind == "missing":
        message, code = f"{where} is missing", "missing_parameter"
    else:
        wrong = dict.fromkeys(str(other["msg"]) for other in errors if other["loc"][1:2] == path[1:2])
        message, code = f"{name} is {ascii(error['input'])[:60]}: {'; or: '.join(wrong)}", "invalid_value"
    return ApiError(400, message, param=name, code=code)


async def _from_http(_: Request, error: HTTPException) -> JSON:
    """What Starlette refuses: unknown routes, wrong methods, bodies that cannot be read."""
    messages = {
        404: "there is no such route; /openapi.json lists them",
        405: "this route does not take this method; /openapi.json lists what it takes",
    }
    message = messages.get(error.status_code, str(error.detail))
    return refusal(ApiError(error.status_code, message, headers=error.headers))
