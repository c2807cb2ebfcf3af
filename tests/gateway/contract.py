"""The OpenAPI document as a judge of answers."""

from __future__ import annotations

__all__ = ["Contract", "Operation"]

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from uvian_worker.client.schemas import mistakes_of
from uvian_worker.gateway.http.problems import PROBLEMS

if TYPE_CHECKING:
    from tests.gateway.site import Reply

#: What every answer has, whatever it is about.
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Server": "uvian",
    "Strict-Transport-Security": "max-age=31536000",
}


@dataclass(frozen=True, slots=True, repr=False)
class Operation:
    """One endpoint, as it is documented."""

    method: str
    route: str
    document: dict[str, Any]

    def __repr__(self) -> str:
        return self.id

    @property
    def id(self) -> str:
        """``operationId``."""
        return str(self.document["operationId"])

    def parameters(self, where: str) -> dict[str, dict[str, Any]]:
        """Schemas by name of those in the path or the query."""
        declared = self.document.get("parameters", ())
        return {each["name"]: each["schema"] for each in declared if each["in"] == where}

    @property
    def body(self) -> dict[str, Any] | None:
        """Schema of the body, if it takes one."""
        asked = self.document.get("requestBody")
        return asked and dict(asked["content"]["application/json"]["schema"])

    @property
    def is_signed_in(self) -> bool:
        """Whether it needs a token."""
        return any("supabase" in way for way in self.document.get("security", [{"supabase": []}]))


class Contract:
    """The document of a gateway."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        # Our own reader of schemas knows definitions by the name that JSON Schema gives them.
        text = orjson.dumps(document).replace(b"#/components/schemas/", b"#/$defs/")
        self._document = orjson.loads(text)
        self.definitions = self._document["components"]["schemas"]
        self.operations = list(self._operations())

    def _operations(self) -> Iterator[Operation]:
        for route, methods in self._document["paths"].items():
            for method, document in methods.items():
                yield Operation(method.upper(), route, document)

    def find(self, method: str, path: str) -> Operation | None:
        """What answers this request; the address without parameters comes first."""
        for operation in sorted(self.operations, key=lambda each: each.route.count("{")):
            pattern = re.sub(r"\{[^}]+\}", "[^/]+", operation.route)
            if operation.method == method and re.fullmatch(pattern, path):
                return operation
        return None

    def check(self, method: str, path: str, reply: Reply) -> None:
        """Fail for an answer that is not documented, or not as it is documented."""
        for name, value in _SAFE.items():
            assert reply.headers.get(name) == value, (name, reply)
        assert reply.headers["X-Request-Id"]
        if reply.status >= 400:
            _check_problem(reply)
        operation = self.find(method, path)
        if operation is None:
            return
        documented = operation.document["responses"].get(str(reply.status))
        assert documented is not None, f"{operation.id} does not document {reply.status}: {reply}"
        kinds = documented.get("content", {})
        kind = reply.headers.get("Content-Type", "").partition(";")[0]
        assert (kind in kinds) if kinds else reply.raw == b"", (operation.id, reply)
        if kind.endswith("json") and "schema" in kinds[kind]:
            schema = {**kinds[kind]["schema"], "$defs": self.definitions}
            assert mistakes_of(schema, reply.body) == [], (operation.id, reply)
        if reply.status >= 400 and reply.status not in (404, 405):
            assert f"`{reply.code}`" in documented["description"], (operation.id, reply)


def _check_problem(reply: Reply) -> None:
    """RFC 9457, and this project's members."""
    assert reply.headers["Content-Type"] == "application/problem+json", reply
    assert reply.headers["Cache-Control"] == "no-store"
    document = reply.body
    kind = PROBLEMS[document["code"]]
    assert document["status"] == reply.status == kind.status
    assert document["title"] == kind.title
    assert document["type"] == f"urn:uvian:problem:{document['code']}"
    assert document["instance"] == f"urn:uvian:request:{reply.headers['X-Request-Id']}"
    if reply.status in (429, 503):
        assert int(reply.headers["Retry-After"]) >= 1
    if reply.status == 401:
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
