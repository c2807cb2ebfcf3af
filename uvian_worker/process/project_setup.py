"""What a project needs beside the schema: the bucket, its policy, the publication, the exposed schema.

The platform owns these, and may refuse or lose them at any time. ``uvian.platform_state()`` says what is
missing; ``uvian migrate`` makes what it may, over a connection or through the Storage API.
"""

from __future__ import annotations

__all__ = ["look_over_api", "make_bucket", "say_what_is_missing"]

import logging
from contextlib import AsyncExitStack
from typing import Final

from repositories.database import Database
from repositories.errors import Misconfigured, RepositoryError
from uvian_worker.config import Config
from uvian_worker.process.stores import Stores, schema_status
from uvian_worker.schema.history import Setup, findings

log = logging.getLogger("uvian.project")

_OF_PICTURES: Final = {"bucket", "policy", "public"}
_TRIED: Final = {"bucket", "public"}  #: by whoever opens the image store: it says so, and refuses


async def look_over_api(config: Config) -> Setup:
    """A project through its API: the ledger, and what is missing where the schema is complete."""
    async with AsyncExitStack() as stack:
        stores = Stores(config, stack)
        database = await stores.untried_database()
        schema = await schema_status(database)
        if schema.pending:
            return Setup(schema, ())
        return Setup(schema, findings(await database.call("platform_state", request={})))


async def make_bucket(config: Config) -> bool:
    """Make the bucket through the Storage API unless it is there; whether it was made.

    Raises ``RepositoryError`` where Storage refuses.
    """
    async with AsyncExitStack() as stack:
        bucket = await Stores(config, stack).bucket()
        try:
            await bucket.require_bucket()
        except Misconfigured:  # it is not there, or the key is refused: making it tells
            await bucket.make_bucket()
            return True
        return False


async def say_what_is_missing(database: Database, config: Config) -> None:
    """One warning when a worker starts, of what it does without. Never in its way."""
    try:
        found = findings(await database.call("platform_state", request={}))
    except RepositoryError as error:
        log.debug("what the project lacks is not known: %s", error)
        return
    others = _TRIED if config.images == "supabase" else _OF_PICTURES
    if missing := [each.problem for each in found if each.part not in others]:
        log.warning(
            "not all of the project is set up: %s Next: `uvian migrate`, which makes what it may; "
            "`uvian migrate --status` has the steps for the rest.",
            " ".join(missing),
        )
