"""An endpoint is one description: what it takes, what it answers, what can go wrong.

Routing, validation and the OpenAPI document are made of it, so they cannot disagree.
"""

from __future__ import annotations

__all__ = [
    "STORABLE",
    "Answer",
    "Endpoints",
    "Operation",
    "Parameters",
    "Request",
    "Shown",
    "handler_of",
]

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from uvian_worker.gateway.http.auth import User
from uvian_worker.gateway.http.bodies import document_of_body, read_body
from uvian_worker.gateway.http.problems import Problem, problem_of


class Parameters(BaseModel):
    """Base of what is taken from a path, a query or a body: what is not declared is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Shown(BaseModel):
    """Base of what is answered: made of rows, or of objects with these attributes."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


#: Of text that Postgres can hold.
STORABLE: Final = r"^[^\x00]*$"


class Nothing(Parameters):
    """No parameters."""


PathT = TypeVar("PathT", bound=BaseModel)
QueryT = TypeVar("QueryT", bound=BaseModel)
BodyT = TypeVar("BodyT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Request(Generic[PathT, QueryT, BodyT]):
    """A valid request, and the user who sent it."""

    user: User
    path: PathT
    query: QueryT
    body: BodyT
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: a model (or None), and how."""

    content: BaseModel | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request[Any, Any, Any]], Awaitable[Answer]]
MethodT = TypeVar("MethodT", bound=Callable[..., Awaitable[Answer]])


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint, as a decorator of its handler. Signed-in users alone come through."""

    id: str  #: ``operationId``
    method: Literal["GET", "POST", "PATCH", "DELETE"]
    route: str  #: ``/v1/jobs/{job_id}``
    _: KW_ONLY
    answers: Mapping[int, type[BaseModel] | None]
    problems: tuple[str, ...] = ()  #: those of its own
    path: type[BaseModel] = Nothing
    query: type[BaseModel] = Nothing
    body: type[BaseModel] | None = None
    reads: bool = False  #: changes nothing, though it is a POST: it counts with what is read
    names: str = ""  #: the path parameter that the ``id`` of its answer is
    summary: str = ""  #: the docstring of its handler, without the full stop
    tag: str = ""  #: that of its ``Endpoints``

    def __call__(self, method: MethodT) -> MethodT:
        """Mark the handler; its ``Endpoints`` finds the mark."""
        summary = (method.__doc__ or "").removesuffix(".")
        setattr(method, _MARK, replace(self, summary=summary))
        return method

    @property
    def all_problems(self) -> tuple[str, ...]:
        """With those that any request may meet."""
        usual = ["bad_request", "unauthorized", "invalid_token", "token_expired", "invalid_input"]
        usual += ["rate_limited", "unavailable"]
        if self.body is not None:
            usual += ["input_too_large", "unsupported_media_type"]
        return tuple(dict.fromkeys([*self.problems, *usual]))


_MARK: Final = "__operation__"


class Endpoints:
    """Base of the handlers of one subject: methods with an ``Operation`` above each."""

    operations: ClassVar[Mapping[str, Operation]]  #: by the name of the handler, in their order

    def __init_subclass__(cls, *, tag: str) -> None:
        """``tag`` groups its operations in the OpenAPI document."""
        cls.operations = {
            name: replace(getattr(handle, _MARK), tag=tag)
            for name, handle in vars(cls).items()
            if hasattr(handle, _MARK)
        }

    def handlers(self) -> Iterator[tuple[Operation, Handler]]:
        """Each operation with the method that answers it."""
        for name, operation in self.operations.items():
            yield operation, getattr(self, name)


_JSON: Final = ("application/json", "")
_ANSWER_SECONDS: Final = 20.0  #: longer than a call to Postgres may take, and a second try


def handler_of(
    operation: Operation,
    handler: Handler,
    admit: Callable[[web.Request, Operation], Awaitable[User]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """aiohttp's handler: ``admit`` names the user, or raises; then the request is read."""

    async def handle(request: web.Request) -> web.StreamResponse:
        user = await admit(request, operation)
        understood: Request[Any, Any, Any] = Request(
            user=user,
            path=_valid(operation.path, dict(request.match_info), "path"),
            query=_valid(operation.query, _single(request), "query"),
            body=await _body(operation.body, request),
            headers=request.headers,
        )
        async with asyncio.timeout(
            _ANSWER_SECONDS
        ):  # of databases that are away, others say so sooner
            answer = await handler(understood)
        return _response(answer)

    return handle


def _single(request: web.Request) -> dict[str, str]:
    repeated = {name for name in request.query if len(request.query.getall(name)) > 1}
    if repeated:
        raise Problem("bad_request", f"Given more than once: {', '.join(sorted(repeated))}.")
    return {name: value for name, value in request.query.items() if name != "access_token"}


async def _body(model: type[BaseModel] | None, request: web.Request) -> BaseModel | None:
    if model is None:
        return None
    if request.content_type not in _JSON and request.can_read_body:
        raise Problem("unsupported_media_type")
    document = document_of_body(await read_body(request, request.client_max_size))
    return _valid(model, document, "body")


def _valid(model: type[BaseModel], document: Any, where: str) -> BaseModel:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problem = problem_of(error)
        if where == "path":  # an id that is none names nothing
            raise Problem("not_found") from error
        problem.members["in"] = where
        raise problem from error


def _response(answer: Answer) -> web.Response:
    headers = {"Cache-Control": "no-store", **answer.headers}
    if answer.content is None:
        return web.Response(status=answer.status, headers=headers)
    return web.Response(
        body=answer.content.model_dump_json().encode(),
        status=answer.status,
        headers=headers,
        content_type="application/json",
    )
