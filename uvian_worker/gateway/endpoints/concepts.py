"""``/v1/concepts``: what was made, with addresses of the pictures, so that a page needs one call."""

from __future__ import annotations

__all__ = ["ConceptEndpoints"]

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from repositories.concepts import UserConcepts
from repositories.database import Database, Filter, Row
from repositories.images import ImageStore
from uvian_worker.gateway.endpoints.files import signed
from uvian_worker.gateway.http.operations import (
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)
from uvian_worker.gateway.http.pagination import Page, PageQuery, page_of

_LISTED: Final = (
    "id", "logo_description", "theme_description", "image_path", "width", "height", "parent_id",
    "job_id", "details", "created_at",
)  # fmt: skip


class Picture(Shown):
    """A stored picture. ``image_url`` works for ten minutes; null when the file is gone."""

    image_path: str
    image_url: str | None
    width: int
    height: int


class ConceptVariation(Picture):
    """The base image in another palette."""

    id: UUID
    position: int
    name: str
    palette: list[str]


class ConceptSummary(Picture):
    """A concept in a list."""

    id: UUID
    logo_description: str
    theme_description: str
    parent_id: UUID | None
    job_id: UUID | None
    details: dict[str, Any]
    created_at: datetime


class Concept(ConceptSummary):
    """A concept with its variations, in the order of their positions."""

    variations: list[ConceptVariation]


class ConceptPage(Page):
    """Some concepts, the newest first."""

    items: list[ConceptSummary]


class ConceptPath(Parameters):
    """Which concept."""

    concept_id: UUID


class ConceptEndpoints(Endpoints, tag="concepts"):
    """The handlers. A concept of somebody else does not exist."""

    def __init__(self, database: Database, images: ImageStore) -> None:
        self._database = database
        self._images = images

    @Operation("listConcepts", "GET", "/v1/concepts", query=PageQuery, answers={200: ConceptPage})
    async def list(self, request: Request[Any, PageQuery, Any]) -> Answer:
        """Your concepts, the newest first."""
        rows, cursor = await page_of(
            self._database,
            "concepts",
            columns=_LISTED,
            where=[Filter("user_id", "eq", request.user.id)],
            query=request.query,
        )
        urls = await self._urls(request.user.id, rows)
        items = [ConceptSummary(**row, image_url=urls.get(row["image_path"])) for row in rows]
        return Answer(ConceptPage(items=items, next_cursor=cursor))

    @Operation(
        "getConcept",
        "GET",
        "/v1/concepts/{concept_id}",
        path=ConceptPath,
        answers={200: Concept},
        problems=("not_found",),
    )
    async def get(self, request: Request[ConceptPath, Any, Any]) -> Answer:
        """One concept with its variations."""
        found = await UserConcepts(self._database, request.user.id).get(
            str(request.path.concept_id)
        )
        row = {name: getattr(found, name) for name in _LISTED}
        variations = [
            {name: getattr(each, name) for name in each.__slots__} for each in found.variations
        ]
        urls = await self._urls(request.user.id, [row, *variations])
        return Answer(
            Concept(
                **row,
                image_url=urls.get(found.image_path),
                variations=[
                    ConceptVariation(**each, image_url=urls.get(each["image_path"]))
                    for each in variations
                ],
            )
        )

    async def _urls(self, user_id: str, rows: Sequence[Row]) -> Mapping[str, str]:
        return await signed(self._images, user_id, [row["image_path"] for row in rows])
