"""The Storage half: ``/storage/v1/object/…`` and ``/storage/v1/bucket/…``."""

from __future__ import annotations

__all__ = ["Storage"]

import asyncio
import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import jwt
import orjson
from aiohttp import web

from tests.supabase.keys import BadToken, Caller, Keys
from tests.supabase.listing import listed
from tests.supabase.objects import SUPERUSER, Bucket, Objects, StoredObject
from tests.supabase.pool import Pool
from tests.supabase.storage_errors import (
    StorageError,
    bucket_not_found,
    invalid_jwt,
    object_not_found,
    storage_error,
)

_PREFIX: Final = "/storage/v1/"
_KEY: Final = re.compile(r"[\w/!\-.*'() &$@=;:+,?]+", re.ASCII)
_INACCESSIBLE: Final = "Either the object does not exist or you do not have access to it"
_MOST_DELETED: Final = 1000
_GLOBAL_LIMIT: Final = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Upload:
    content: bytes
    content_type: str
    cache_control: str


class Storage:
    """Rows in Postgres as the caller, bytes in a folder under names that no request chooses."""

    def __init__(self, folder: Path, keys: Keys, pool: Pool) -> None:
        self._folder = folder
        self._keys = keys
        self._pool = pool
        self._objects = Objects(pool)

    async def stop(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def answer(self, request: web.BaseRequest, token: str | None) -> web.Response:
        """One answer; every error is one."""
        try:
            return await self._answer(request, token)
        except Exception as error:
            answer = storage_error(error)
            if answer is None:
                raise
            return _json(answer.body, answer.http)

    async def _answer(self, request: web.BaseRequest, token: str | None) -> web.Response:
        path = request.rel_url.raw_path.removeprefix(_PREFIX)
        parts = [unquote(part) for part in path.split("/")]
        match request.method, parts:
            case (("GET" | "HEAD"), ["object", "sign", bucket, *name]) if name:
                return await self._open_signed(request, bucket, "/".join(name))
            case (("GET" | "HEAD"), ["object", "public", bucket, *name]) if name:
                return await self._open_public(request, bucket, "/".join(name))
            case (("GET" | "HEAD"), ["object", "info", bucket, *name]) if name:
                return await self._info(bucket, "/".join(name), self._caller(token))
            case (("GET" | "HEAD"), ["object", "authenticated", bucket, *name]) if name:
                return await self._open(request, bucket, "/".join(name), token)
            case (("GET" | "HEAD"), ["object", bucket, *name]) if name:
                return await self._open(request, bucket, "/".join(name), token)
            case "POST", ["object", "sign", bucket]:
                return await self._sign_many(request, bucket, self._caller(token))
            case "POST", ["object", "sign", bucket, *name]:
                return await self._sign(request, bucket, "/".join(name), self._caller(token))
            case "POST", ["object", "list", bucket]:
                return await self._list(request, bucket, self._caller(token))
            case "POST", ["object", bucket, *name] if name:
                upsert = request.headers.get("x-upsert", "false") == "true"
                return await self._upload(
                    request, bucket, "/".join(name), self._caller(token), upsert=upsert
                )
            case "PUT", ["object", bucket, *name] if name:
                return await self._update(request, bucket, "/".join(name), self._caller(token))
            case "DELETE", ["object", bucket]:
                return await self._delete_many(request, bucket, self._caller(token))
            case "DELETE", ["object", bucket, *name]:
                return await self._delete(bucket, "/".join(name), self._caller(token))
            case _, ["bucket", *rest]:
                return await self._buckets(request, rest, self._caller(token))
            case _:
                path = request.path
                raise StorageError(404, "Not Found", f"Route {request.method}:{path} not found")

    # ─── who asks ────────────────────────────────────────────────────────────────────────────────

    def _caller(self, token: str | None) -> Caller:
        if token is None:
            raise StorageError(400, "Error", "headers must have required property 'authorization'")
        try:
            return self._keys.caller(token)
        except BadToken as error:
            message = (
                '"exp" claim timestamp check failed' if error.claims else "Invalid Compact JWS"
            )
            raise StorageError(403, "Unauthorized", message) from error

    # ─── reading ─────────────────────────────────────────────────────────────────────────────────

    async def _open(
        self, request: web.BaseRequest, bucket: str, name: str, token: str | None
    ) -> web.Response:
        known = await self._objects.bucket(bucket)
        if known is None:
            raise bucket_not_found()
        if known.public:
            return await self._send(request, await self._visible(bucket, name, SUPERUSER))
        try:
            caller = self._caller(token)
        except StorageError:
            # Whoever may not ask does not learn that the bucket is there.
            raise bucket_not_found() from None
        return await self._send(request, await self._visible(bucket, name, caller))

    async def _open_public(self, request: web.BaseRequest, bucket: str, name: str) -> web.Response:
        known = await self._objects.bucket(bucket)
        if known is None or not known.public:
            raise bucket_not_found()
        return await self._send(request, await self._visible(bucket, name, SUPERUSER))

    async def _open_signed(self, request: web.BaseRequest, bucket: str, name: str) -> web.Response:
        token = request.rel_url.query.get("token")
        if token is None:
            raise StorageError(400, "Error", "querystring must have required property 'token'")
        try:
            signed_for = self._keys.signed(token)
        except jwt.ExpiredSignatureError:
            raise invalid_jwt('"exp" claim timestamp check failed') from None
        except jwt.InvalidSignatureError:
            raise invalid_jwt("signature verification failed") from None
        except (jwt.PyJWTError, KeyError):
            raise invalid_jwt("Invalid Compact JWS") from None
        if signed_for != f"{bucket}/{name}":
            raise StorageError(400, "InvalidSignature", "The url do not match the signature")
        return await self._send(request, await self._visible(bucket, name, SUPERUSER))

    async def _info(self, bucket: str, name: str, caller: Caller) -> web.Response:
        found = await self._visible(bucket, name, caller)
        return _json(
            {
                "id": found.id,
                "name": found.name,
                "version": found.version,
                "bucket_id": bucket,
                "size": found.metadata.get("size"),
                "content_type": found.metadata.get("mimetype"),
                "cache_control": found.metadata.get("cacheControl"),
                "etag": found.metadata.get("eTag"),
                "metadata": found.row.get("user_metadata") or {},
                "last_modified": found.row["updated_at"],
                "created_at": found.row["created_at"],
            }
        )

    async def _list(self, request: web.BaseRequest, bucket: str, caller: Caller) -> web.Response:
        wanted = await _document(request)
        prefix = str(wanted.get("prefix") or "")
        prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        below = await self._objects.below(bucket, prefix, caller)
        return _json(listed(below, prefix, wanted))

    async def _visible(self, bucket: str, name: str, caller: Caller) -> StoredObject:
        found = (await self._objects.find(bucket, [name], caller)).get(name)
        if found is None:
            raise object_not_found()
        return found

    async def _send(self, request: web.BaseRequest, found: StoredObject) -> web.Response:
        try:
            content = await asyncio.to_thread(self._file(found.version).read_bytes)
        except FileNotFoundError:
            raise object_not_found() from None
        headers = {
            "Content-Type": found.metadata.get("mimetype", "application/octet-stream"),
            "Cache-Control": found.metadata.get("cacheControl", "no-cache"),
            "ETag": found.metadata.get("eTag", ""),
        }
        download = request.rel_url.query.get("download")
        if download is not None:
            filename = f"; filename*=UTF-8''{quote(download)}" if download else ""
            headers["Content-Disposition"] = f"attachment{filename}"
        return web.Response(body=content if request.method == "GET" else b"", headers=headers)

    # ─── signing ─────────────────────────────────────────────────────────────────────────────────

    async def _sign_many(
        self, request: web.BaseRequest, bucket: str, caller: Caller
    ) -> web.Response:
        wanted = await _document(request)
        paths, expires_in = list(wanted["paths"]), int(wanted["expiresIn"])
        found = await self._objects.find(bucket, paths, caller)
        return _json(
            [
                {
                    "error": None if path in found else _INACCESSIBLE,
                    "path": path,
                    "signedURL": self._signed_url(bucket, path, expires_in)
                    if path in found
                    else None,
                }
                for path in paths
            ]
        )

    async def _sign(
        self, request: web.BaseRequest, bucket: str, name: str, caller: Caller
    ) -> web.Response:
        wanted = await _document(request)
        await self._visible(bucket, name, caller)
        return _json({"signedURL": self._signed_url(bucket, name, int(wanted["expiresIn"]))})

    def _signed_url(self, bucket: str, name: str, expires_in: int) -> str:
        token = self._keys.sign(f"{bucket}/{name}", expires_in)
        return f"/object/sign/{quote(bucket)}/{quote(name)}?token={token}"

    # ─── writing ─────────────────────────────────────────────────────────────────────────────────

    async def _upload(
        self, request: web.BaseRequest, bucket: str, name: str, caller: Caller, *, upsert: bool
    ) -> web.Response:
        upload = await self._admitted(request, bucket, name)
        await self._objects.may_write(bucket, name, caller, upsert=upsert)
        before = (await self._objects.find(bucket, [name], SUPERUSER)).get(name)
        version = await self._keep(upload.content)
        try:
            id_ = await self._objects.write(
                bucket, name, version, _metadata(upload), caller, upsert=upsert
            )
        except BaseException:
            self._file(version).unlink(missing_ok=True)
            raise
        self._forget(before)
        return _json({"Key": f"{bucket}/{name}", "Id": id_})

    async def _update(
        self, request: web.BaseRequest, bucket: str, name: str, caller: Caller
    ) -> web.Response:
        upload = await self._admitted(request, bucket, name)
        before = await self._visible(bucket, name, caller)
        version = await self._keep(upload.content)
        id_ = await self._objects.replace(bucket, name, version, _metadata(upload), caller)
        if id_ is None:
            self._file(version).unlink(missing_ok=True)
            raise StorageError(403, "Unauthorized", "new row violates row-level security policy")
        self._forget(before)
        return _json({"Key": f"{bucket}/{name}", "Id": id_})

    async def _delete_many(
        self, request: web.BaseRequest, bucket: str, caller: Caller
    ) -> web.Response:
        prefixes = list((await _document(request)).get("prefixes") or [])
        if not 1 <= len(prefixes) <= _MOST_DELETED:
            limit = "more than 1000" if prefixes else "fewer than 1"
            raise StorageError(400, "Error", f"body/prefixes must NOT have {limit} items")
        deleted = await self._objects.delete(bucket, prefixes, caller)
        for one in deleted:
            self._forget(one)
        return _json([one.row for one in deleted])

    async def _delete(self, bucket: str, name: str, caller: Caller) -> web.Response:
        deleted = await self._objects.delete(bucket, [name], caller)
        if not deleted:
            raise object_not_found()
        self._forget(deleted[0])
        return _json({"message": "Successfully deleted"})

    async def _admitted(self, request: web.BaseRequest, bucket: str, name: str) -> _Upload:
        """The content of a request, if key, bucket, type and size are right."""
        if not _KEY.fullmatch(name) or not name.strip("/"):
            raise StorageError(400, "InvalidKey", f"Invalid key: {name}")
        known = await self._objects.bucket(bucket)
        if known is None:
            raise bucket_not_found()
        upload = await _uploaded(request)
        _check_limits(known, upload)
        return upload

    async def _keep(self, content: bytes) -> str:
        """Bytes under a new name; that they are there is known before the row is."""
        version = str(uuid.uuid4())
        await asyncio.to_thread(self._file(version).write_bytes, content)
        return version

    def _forget(self, replaced: StoredObject | None) -> None:
        if replaced is not None and replaced.version:
            self._file(replaced.version).unlink(missing_ok=True)

    def _file(self, version: str) -> Path:
        return self._folder / str(uuid.UUID(version))

    # ─── buckets ─────────────────────────────────────────────────────────────────────────────────

    async def _buckets(
        self, request: web.BaseRequest, rest: list[str], caller: Caller
    ) -> web.Response:
        match request.method, rest:
            case "GET", []:
                return _json([bucket.row for bucket in await self._objects.buckets(caller)])
            case "GET", [name]:
                bucket = await self._objects.bucket(name, caller)
                if bucket is None:
                    raise bucket_not_found()
                return _json({**bucket.row, "owner": bucket.row["owner"] or ""})
            case "POST", []:
                wanted = await _document(request)
                wanted["id"] = wanted.get("id") or wanted["name"]
                await self._objects.create_bucket(wanted, caller)
                return _json({"name": wanted["id"]})
            case "POST", [name, "empty"]:
                below = await self._objects.below(name, "", caller)
                for one in await self._objects.delete(name, [o.name for o in below], caller):
                    self._forget(one)
                return _json({"message": "Successfully emptied"})
            case "DELETE", [name]:
                if await self._objects.below(name, "", SUPERUSER):
                    message = "The bucket you tried to delete is not empty"
                    raise StorageError(409, "ResourceNotEmpty", message)
                if not await self._objects.delete_bucket(name, caller):
                    raise bucket_not_found()
                return _json({"message": "Successfully deleted"})
            case _:
                raise StorageError(404, "Not Found", f"Route {request.method} not found")


def _check_limits(bucket: Bucket, upload: _Upload) -> None:
    allowed = bucket.allowed_mime_types
    kind = upload.content_type.partition(";")[0].strip()
    if allowed and not any(
        kind == a or (a.endswith("/*") and kind.startswith(a[:-1])) for a in allowed
    ):
        raise StorageError(415, "invalid_mime_type", f"mime type {kind} is not supported")
    if len(upload.content) > min(bucket.file_size_limit or _GLOBAL_LIMIT, _GLOBAL_LIMIT):
        raise StorageError(413, "Payload too large", "The object exceeded the maximum allowed size")


async def _uploaded(request: web.BaseRequest) -> _Upload:
    kind = request.headers.get("Content-Type", "application/octet-stream")
    if not kind.startswith("multipart/form-data"):
        cache = request.headers.get("Cache-Control", "no-cache")
        return _Upload(await request.read(), kind, cache)
    content, content_type, cache = b"", "application/octet-stream", "3600"
    async for part in await request.multipart():
        if part.filename is not None:  # type: ignore[union-attr]
            content = bytes(await part.read())  # type: ignore[union-attr]
            content_type = part.headers.get("Content-Type", content_type)
        elif part.name == "cacheControl":  # type: ignore[union-attr]
            cache = await part.text()  # type: ignore[union-attr]
    return _Upload(content, content_type, f"max-age={cache}")


def _metadata(upload: _Upload) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    size = len(upload.content)
    return {
        "eTag": f'"{hashlib.md5(upload.content, usedforsecurity=False).hexdigest()}"',
        "size": size,
        "mimetype": upload.content_type,
        "cacheControl": upload.cache_control,
        "lastModified": now,
        "contentLength": size,
        "httpStatusCode": 200,
    }


async def _document(request: web.BaseRequest) -> dict[str, Any]:
    try:
        document = orjson.loads(await request.read() or b"{}")
    except ValueError:
        document = None
    if not isinstance(document, Mapping):
        raise StorageError(400, "Error", "body must be object")
    return dict(document)


def _json(body: Any, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return web.Response(status=status, body=orjson.dumps(body), headers=headers)
