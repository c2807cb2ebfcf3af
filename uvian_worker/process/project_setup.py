"""What a project needs besides the schema: bucket, policy, publication, exposed schema.

The platform owns these parts, and may refuse or lose them at any time. ``uvian.platform_state()`` returns
what is missing; ``uvian migrate`` creates what it may, over a connection or through the Storage API.
"""

from __future__ import annotations

__all__ = ["look_over_api", "make_bucket", "warn_of_missing_parts"]

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
_TRIED: Final = {
    "bucket",
    "public",
}  #: when the image store is opened, which raises if they are missing


async def look_over_api(config: Config) -> Setup:
    """A project through its API: the history, and what is missing where the schema is complete."""
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
        except Misconfigured:  # it is missing, or the key is refused: the next call shows which
            await bucket.make_bucket()
            return True
        return False


async def warn_of_missing_parts(database: Database, config: Config) -> None:
    """Log one warning at the start of a worker about what is missing. It never prevents the start."""
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
