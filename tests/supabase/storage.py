"""The Storage half: ``/storage/v1/object/…`` and ``/storage/v1/bucket/…``."""

from __future__ import annotations

__all__ = ["Storage"]

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import jwt
import orjson
from aiohttp import web

from tests.supabase.keys import BadToken, Caller, Keys
from tests.supabase.listing import listed
from tests.supabase.objects import SUPERUSER, Objects, StoredObject
from tests.supabase.pool import Pool
from tests.supabase.storage_errors import (
    StorageError,
    bucket_not_found,
    invalid_jwt,
    object_not_found,
    storage_error,
)
from tests.supabase.uploads import Upload, require_admitted, require_key, uploaded

_PREFIX: Final = "/storage/v1/"
_UNDER_OBJECT: Final = frozenset({"sign", "authenticated", "list"})
_INACCESSIBLE: Final = "Either the object does not exist or you do not have access to it"
_MOST_DELETED: Final = 1000


@dataclass(frozen=True, slots=True)
class _Ask:
    """One request, taken apart."""

    request: web.BaseRequest
    token: str | None
    bucket: str
    name: str  #: of the object, or empty

    async def document(self) -> dict[str, Any]:
        """The body, which is a JSON object."""
        try:
            document = orjson.loads(await self.request.read() or b"{}")
        except ValueError:
            document = None
        if not isinstance(document, Mapping):
            raise StorageError(400, "Error", "body must be object")
        return dict(document)


class Storage:
    """Rows in Postgres as the caller, bytes in a folder under names that no request chooses."""

    def __init__(self, folder: Path, keys: Keys, pool: Pool) -> None:
        self._folder = folder
        self._keys = keys
        self._pool = pool
        self._objects = Objects(pool)
        self._routes: dict[tuple[str, str], Callable[[_Ask], Awaitable[web.Response]]] = {
            ("GET", "object/sign/*"): self._open_signed,
            ("GET", "object/authenticated/*"): self._open,
            ("GET", "object/*"): self._open,
            ("POST", "object/sign"): self._sign_many,
            ("POST", "object/sign/*"): self._sign,
            ("POST", "object/list"): self._list,
            ("POST", "object/*"): self._upload,
            ("DELETE", "object"): self._delete_many,
            ("POST", "buckets"): self._create_bucket,
            ("GET", "bucket"): self._bucket,
        }

    def stop(self) -> None:
        """Close the connections."""
        self._pool.close()

    async def answer(self, request: web.BaseRequest, token: str | None) -> web.Response:
        """One answer; every error is one."""
        kind, bucket, name = _taken_apart(request.rel_url.raw_path)
        try:
            route = self._routes.get((request.method, kind), _no_route)
            return await route(_Ask(request, token, bucket, name))
        except Exception as error:
            answer = storage_error(error)
            if answer is None:
                raise
            return _json(answer.body, answer.http)

    def _caller(self, ask: _Ask) -> Caller:
        if ask.token is None:
            raise StorageError(400, "Error", "headers must have required property 'authorization'")
        try:
            return self._keys.caller(ask.token)
        except BadToken as error:
            message = (
                '"exp" claim timestamp check failed' if error.claims else "Invalid Compact JWS"
            )
            raise StorageError(403, "Unauthorized", message) from error

    # ─── reading ─────────────────────────────────────────────────────────────────────────────────

    async def _open(self, ask: _Ask) -> web.Response:
        bucket = await self._objects.bucket(ask.bucket)
        if bucket is None:
            raise bucket_not_found()
        try:
            caller = self._caller(ask)
        except StorageError:
            # Whoever may not ask does not learn that the bucket is there.
            raise bucket_not_found() from None
        return await self._send(await self._visible(ask, caller))

    async def _open_signed(self, ask: _Ask) -> web.Response:
        token = ask.request.rel_url.query.get("token")
        if token is None:
            raise StorageError(400, "Error", "querystring must have required property 'token'")
        if self._signed_for(token) != f"{ask.bucket}/{ask.name}":
            raise StorageError(400, "InvalidSignature", "The url do not match the signature")
        return await self._send(await self._visible(ask, SUPERUSER))

    def _signed_for(self, token: str) -> str:
        try:
            return self._keys.signed(token)
        except jwt.ExpiredSignatureError:
            raise invalid_jwt('"exp" claim timestamp check failed') from None
        except jwt.InvalidSignatureError:
            raise invalid_jwt("signature verification failed") from None
        except (jwt.PyJWTError, KeyError):
            raise invalid_jwt("Invalid Compact JWS") from None

    async def _list(self, ask: _Ask) -> web.Response:
        wanted = await ask.document()
        prefix = str(wanted.get("prefix") or "").strip("/")
        prefix += "/" if prefix else ""
        below = await self._objects.below(ask.bucket, prefix, self._caller(ask))
        return _json(listed(below, prefix, wanted))

    async def _visible(self, ask: _Ask, caller: Caller) -> StoredObject:
        found = (await self._objects.find(ask.bucket, [ask.name], caller)).get(ask.name)
        if found is None:
            raise object_not_found()
        return found

    async def _send(self, found: StoredObject) -> web.Response:
        try:
            content = await asyncio.to_thread(self._file(found.version).read_bytes)
        except FileNotFoundError:
            raise object_not_found() from None
        headers = {
            "Content-Type": found.metadata.get("mimetype", "application/octet-stream"),
            "Cache-Control": found.metadata.get("cacheControl", "no-cache"),
            "ETag": found.metadata.get("eTag", ""),
        }
        return web.Response(body=content, headers=headers)

    # ─── signing ─────────────────────────────────────────────────────────────────────────────────

    async def _sign_many(self, ask: _Ask) -> web.Response:
        wanted = await ask.document()
        paths, expires_in = list(_given(wanted, "paths")), int(_given(wanted, "expiresIn"))
        found = await self._objects.find(ask.bucket, paths, self._caller(ask))
        return _json([self._signed(ask.bucket, p, expires_in, exists=p in found) for p in paths])

    async def _sign(self, ask: _Ask) -> web.Response:
        expires_in = int(_given(await ask.document(), "expiresIn"))
        await self._visible(ask, self._caller(ask))
        return _json({"signedURL": self._signed_url(ask.bucket, ask.name, expires_in)})

    def _signed(self, bucket: str, path: str, expires_in: int, *, exists: bool) -> dict[str, Any]:
        url = self._signed_url(bucket, path, expires_in) if exists else None
        return {"error": None if exists else _INACCESSIBLE, "path": path, "signedURL": url}

    def _signed_url(self, bucket: str, name: str, expires_in: int) -> str:
        token = self._keys.sign(f"{bucket}/{name}", expires_in)
        return f"/object/sign/{quote(bucket)}/{quote(name)}?token={token}"

    # ─── writing ─────────────────────────────────────────────────────────────────────────────────

    async def _upload(self, ask: _Ask) -> web.Response:
        caller, upload = self._caller(ask), await self._admitted(ask)
        await self._objects.may_write(ask.bucket, ask.name, caller)
        version = await self._keep(upload.content)
        try:
            id_ = await self._objects.write(ask.bucket, ask.name, version, upload.metadata, caller)
        except BaseException:
            self._forget(version)
            raise
        return _json({"Key": f"{ask.bucket}/{ask.name}", "Id": id_})

    async def _delete_many(self, ask: _Ask) -> web.Response:
        prefixes = list((await ask.document()).get("prefixes") or [])
        if not 1 <= len(prefixes) <= _MOST_DELETED:
            limit = "more than 1000" if prefixes else "fewer than 1"
            raise StorageError(400, "Error", f"body/prefixes must NOT have {limit} items")
        deleted = await self._objects.delete(ask.bucket, prefixes, self._caller(ask))
        for one in deleted:
            self._forget(one.version)
        return _json([one.row for one in deleted])

    async def _admitted(self, ask: _Ask) -> Upload:
        """The file of a request, if key, bucket, type and size are right."""
        require_key(ask.name)
        bucket = await self._objects.bucket(ask.bucket)
        if bucket is None:
            raise bucket_not_found()
        upload = await uploaded(ask.request)
        require_admitted(bucket, upload)
        return upload

    async def _keep(self, content: bytes) -> str:
        """Bytes under a new name: they are there before any row says so."""
        version = str(uuid.uuid4())
        await asyncio.to_thread(self._file(version).write_bytes, content)
        return version

    def _forget(self, version: str) -> None:
        self._file(version).unlink(missing_ok=True)

    def _file(self, version: str) -> Path:
        # A row that was written by hand may call its version anything.
        return self._folder / hashlib.sha256(version.encode()).hexdigest()

    # ─── buckets ─────────────────────────────────────────────────────────────────────────────────

    async def _bucket(self, ask: _Ask) -> web.Response:
        bucket = await self._objects.bucket(ask.bucket, self._caller(ask))
        if bucket is None:
            raise bucket_not_found()
        return _json(bucket.row)

    async def _create_bucket(self, ask: _Ask) -> web.Response:
        wanted = await ask.document()
        wanted["id"] = wanted.get("id") or _given(wanted, "name")
        await self._objects.create_bucket(wanted, self._caller(ask))
        return _json({"name": wanted["id"]})


def _given(document: dict[str, Any], name: str) -> Any:
    if name not in document:
        raise StorageError(400, "Error", f"body must have required property '{name}'")
    return document[name]


async def _no_route(ask: _Ask) -> web.Response:
    message = f"Route {ask.request.method}:{ask.request.path} not found"
    raise StorageError(404, "Not Found", message, http=404)


def _taken_apart(raw_path: str) -> tuple[str, str, str]:
    """Which kind of route, the bucket, and the name of the object."""
    kind, *parts = [unquote(part) for part in raw_path.removeprefix(_PREFIX).split("/")]
    if kind == "bucket" and not parts:
        return "buckets", "", ""
    if kind == "object" and parts and parts[0] in _UNDER_OBJECT:
        kind = f"object/{parts.pop(0)}"
    bucket, *names = parts or [""]
    name = "/".join(names)
    return (f"{kind}/*" if name else kind), bucket, name


def _json(body: Any, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return web.Response(status=status, body=orjson.dumps(body), headers=headers)
