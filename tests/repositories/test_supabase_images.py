"""Pictures in Supabase Storage: the contract, and what the bucket, the line and the settings do to it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from repositories.errors import (
    DataError,
    Misconfigured,
    NotFound,
    NotGranted,
    TimedOut,
    Unavailable,
)
from repositories.images import address
from repositories.supabase import Supabase, SupabaseDatabase, SupabaseImages, connect_supabase
from repositories.supabase import images as supabase_images
from repositories.supabase.images import BUCKET
from tests.contracts.image_store import PNG, ImageStoreContract
from tests.supabase.faults import (
    Action,
    delay,
    hang,
    html_502,
    lose_reply,
    lose_request,
    reset,
    status,
    truncate,
)
from tests.supabase.platform import Platform

USER = str(uuid4())

pytestmark = pytest.mark.database


@pytest.fixture
async def supabase(platform: Platform) -> AsyncIterator[Supabase]:
    """The client of the project, as the service."""
    supabase = connect_supabase(platform.url, platform.secret_key)
    yield supabase
    await supabase.close()


@pytest.fixture
async def store(supabase: Supabase) -> AsyncIterator[SupabaseImages]:
    """A store that allows a few bytes, three calls at a time."""
    store = SupabaseImages(supabase, max_bytes=ImageStoreContract.max_bytes, parallel=3)
    yield store
    await store.close()


async def opened(url: str) -> httpx.Response:
    """What somebody gets who has the URL and nothing else."""
    async with httpx.AsyncClient() as stranger:
        return await stranger.get(url)


class TestSupabaseImages(ImageStoreContract):
    """It keeps the promises of the port."""

    @pytest.fixture
    def store(self, store: SupabaseImages) -> SupabaseImages:
        """The store of this module."""
        return store

    async def fetch(self, store: Any, url: str) -> bytes | None:
        answer = await opened(url)
        return answer.content if answer.status_code == 200 else None


class TestStoring:
    """What is stored is whole, once, and what the address says."""

    async def test_it_is_kept_as_what_it_is(
        self, store: SupabaseImages, platform: Platform
    ) -> None:
        """With its type, for ever in caches: another content has another address."""
        stored = await store.put(USER, b"picture", "image/webp")
        urls = await store.sign([stored.path], expires_in=60)
        answer = await opened(urls[stored.path])
        assert answer.headers["content-type"] == "image/webp"
        assert "31536000" in answer.headers["cache-control"]

    async def test_what_is_there_is_a_success_and_is_kept(
        self, store: SupabaseImages, platform: Platform
    ) -> None:
        """HTTP 400 with a 409 inside, once: it is neither tried again nor written over."""
        await store.put(USER, b"x", PNG)
        await store.put(USER, b"x", PNG)
        uploads = platform.asked(f"/object/{BUCKET}/", "POST")
        assert len(uploads) == 2
        assert all(asked.headers.get("x-upsert", "false") == "false" for asked in uploads)

    @pytest.mark.parametrize("fault", [lose_reply, lose_request, reset, truncate, html_502])
    async def test_every_call_survives_a_reply_that_is_lost(
        self, store: SupabaseImages, platform: Platform, fault: Action
    ) -> None:
        """Each is struck once; a repeated upload meets its own first try, and that is a success."""
        digest = hashlib.sha256(b"x").hexdigest()
        rules = []

        def strike() -> None:
            platform.faults.clear()
            rules.append(platform.faults.add(fault, path="/storage/v1/", times=1))

        strike()
        stored = await store.put(USER, b"x", PNG)
        assert stored.path == f"{USER}/{digest}.png"
        strike()
        assert await store.get(stored.path) == b"x"
        strike()
        assert list(await store.sign([stored.path], expires_in=60)) == [stored.path]
        strike()
        await store.delete([stored.path])
        strike()
        await store.require_bucket()
        assert [rule.hits for rule in rules] == [1] * 5
        with pytest.raises(NotFound):
            await store.get(stored.path)

    @pytest.mark.parametrize(
        "body",
        [
            '{"statusCode":"500","error":"Internal","message":"Internal Server Error"}',
            '{"statusCode":"429","error":"too_many_connections","message":"slow down"}',
            '{"statusCode":"423","error":"ResourceLocked","message":"locked"}',
            '{"statusCode":"544","error":"DatabaseTimeout","message":"timed out"}',
        ],
    )
    async def test_what_passes_is_tried_again_and_then_the_callers(
        self, store: SupabaseImages, platform: Platform, body: str
    ) -> None:
        """The true status is in the body, whatever HTTP says."""
        platform.faults.add(status(400, body), times=2)
        await store.put(USER, b"x", PNG)
        platform.faults.clear()
        rule = platform.faults.add(status(400, body))
        with pytest.raises(Unavailable):
            await store.put(USER, b"y", PNG)
        assert rule.hits == 3

    async def test_the_buckets_own_limits_hold_too(
        self, store: SupabaseImages, superuser_dsn: str, supabase: Supabase
    ) -> None:
        """413 and 415 are a fault of the data: the same picture would be refused again."""
        hand = await asyncpg.connect(superuser_dsn)
        await hand.execute(
            "update storage.buckets set file_size_limit = 10, allowed_mime_types = array['image/png']"
        )
        await hand.close()
        with pytest.raises(DataError, match="exceeded the maximum"):
            await store.put(USER, b"x" * 11, PNG)
        with pytest.raises(DataError, match="not supported"):
            await store.put(USER, b"x", "image/webp")
        await store.put(USER, b"x" * 10, PNG)

    async def test_another_content_at_an_address_is_not_handed_out(
        self, store: SupabaseImages, supabase: Supabase
    ) -> None:
        """Somebody replaced the file by hand: a job must not go on with it."""
        path = (await store.put(USER, b"mine", PNG)).path
        files = supabase.storage.from_(BUCKET)
        await files.remove([path])
        await files.upload(path, b"replaced", {"content-type": PNG})
        with pytest.raises(DataError, match="is not what its address names"):
            await store.get(path)

    @pytest.mark.parametrize("page", ["<!doctype html><p>Back soon", '{"status":"maintenance"}'])
    async def test_a_page_is_no_answer_of_storage(
        self, store: SupabaseImages, platform: Platform, page: str
    ) -> None:
        """Something in between says 200 to everything: the store is away, nothing is stored or lost."""
        path = (await store.put(USER, b"\x89PNG", PNG)).path
        platform.faults.add(status(200, page, "text/html"))
        for call in (
            store.put(USER, b"y", PNG),
            store.get(path),
            store.sign([path], expires_in=60),
        ):
            with pytest.raises(Unavailable):
                await call
        platform.faults.clear()
        assert await store.get(path) == b"\x89PNG"

    async def test_half_a_picture_is_not_handed_out(
        self, store: SupabaseImages, platform: Platform
    ) -> None:
        """A download that is cut every time is no picture."""
        path = (await store.put(USER, b"x" * 50_000, PNG)).path
        platform.faults.add(truncate)
        with pytest.raises(Unavailable):
            await store.get(path)


class TestTimeAndPlaces:
    """Deadlines of its own, and no more calls than it was given places."""

    @pytest.mark.parametrize("fault", [hang, delay(30)])
    async def test_a_call_has_a_deadline(
        self, supabase: Supabase, platform: Platform, fault: Action
    ) -> None:
        """A line that hangs is not waited for; the next call is not in its way."""
        hasty = SupabaseImages(supabase, parallel=1, timeout=0.4)
        platform.faults.add(fault)
        started = time.monotonic()
        with pytest.raises(TimedOut):
            await hasty.put(USER, b"x", PNG)
        assert time.monotonic() - started < 5
        platform.faults.clear()
        patient = SupabaseImages(supabase, parallel=1)
        await patient.put(USER, b"x", PNG)
        await hasty.close()
        await patient.close()

    async def test_parallel_calls_are_bounded(
        self, store: SupabaseImages, platform: Platform
    ) -> None:
        """As many at a time as were allowed (3 here), and not one after another."""
        rule = platform.faults.add(hang, path="/storage/v1/")
        puts = [asyncio.create_task(store.put(USER, bytes([n]), PNG)) for n in range(1, 10)]
        async with asyncio.timeout(30):
            while rule.hits < 3:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert rule.hits == 3
        for put in puts:
            put.cancel()
        await asyncio.gather(*puts, return_exceptions=True)

    async def test_uploads_do_not_keep_the_database_waiting(
        self, store: SupabaseImages, supabase: Supabase, platform: Platform
    ) -> None:
        """They share the client, and have places of their own in it."""
        platform.faults.add(hang, path="/storage/v1/")
        puts = [asyncio.create_task(store.put(USER, bytes([n]), PNG)) for n in range(1, 10)]
        database = await SupabaseDatabase.connect(supabase)
        async with asyncio.timeout(10):
            await asyncio.gather(*(database.select("jobs") for _ in range(10)))
        for put in puts:
            put.cancel()
        await asyncio.gather(*puts, return_exceptions=True)

    async def test_the_event_loop_does_not_wait_for_digests(
        self, store: SupabaseImages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a large picture is digested everything else goes on."""
        released = threading.Event()

        def slow(*arguments: Any, **named: Any) -> Any:
            released.wait(30)
            return address(*arguments, **named)

        monkeypatch.setattr(supabase_images, "address", slow)
        putting = asyncio.create_task(store.put(USER, b"x", PNG))
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not putting.done()
        released.set()
        await putting


class TestSigning:
    """URLs that open one picture for a while."""

    async def test_many_are_signed_in_few_calls(
        self, store: SupabaseImages, platform: Platform
    ) -> None:
        """Seven variations cost one call, and a thousand two."""
        paths = [f"{USER}/{n:064x}.png" for n in range(1000)]
        assert await store.sign(paths, expires_in=60) == {}
        assert len(platform.asked("/object/sign/")) == 2

    async def test_they_are_whole_urls_that_expire(
        self, store: SupabaseImages, platform: Platform
    ) -> None:
        """Relative in the answer of Storage, absolute in ours; and not for ever."""
        path = (await store.put(USER, b"x", PNG)).path
        url = (await store.sign([path], expires_in=3))[path]
        assert url.startswith(f"{platform.url}/storage/v1/object/sign/{BUCKET}/{path}?token=")
        assert (await opened(url)).content == b"x"
        async with asyncio.timeout(30):
            while (await opened(url)).status_code == 200:
                await asyncio.sleep(0.2)

    async def test_one_opens_no_other_picture(
        self, store: SupabaseImages, platform: Platform
    ) -> None:
        """The token is for its path."""
        one, other = [(await store.put(USER, content, PNG)).path for content in (b"1", b"2")]
        url = (await store.sign([one], expires_in=60))[one]
        assert (await opened(url.replace(one, other))).status_code != 200
        assert (await opened(url.partition("?")[0])).status_code != 200


class TestSettings:
    """What is not set up is said in one sentence."""

    async def test_a_missing_bucket_says_so(
        self, store: SupabaseImages, superuser_dsn: str
    ) -> None:
        """At start, and of every call: the command and the dashboard's steps."""
        hand = await asyncpg.connect(superuser_dsn)
        await hand.execute("set session_replication_role = replica; delete from storage.buckets")
        await hand.close()
        path = f"{USER}/{'0' * 64}.png"
        calls: list[Callable[[], Any]] = [
            store.require_bucket,
            lambda: store.put(USER, b"x", PNG),
            lambda: store.get(path),
        ]
        for call in calls:
            with pytest.raises(Misconfigured, match="New bucket"):
                await call()

    async def test_a_wrong_key_says_so(self, platform: Platform) -> None:
        """Storage answers as if there were no bucket: both are named."""
        stranger = "sb_secret_0123456789abcdefghijkl_0badcafe"
        supabase = connect_supabase(platform.url, stranger)
        store = SupabaseImages(supabase)
        for call in (store.require_bucket, lambda: store.put(USER, b"x", PNG)):
            with pytest.raises(Misconfigured, match="UVIAN_SUPABASE_KEY"):
                await call()
        with pytest.raises((Misconfigured, NotGranted), match="UVIAN_SUPABASE_KEY"):
            await store.get(f"{USER}/{'0' * 64}.png")
        await store.close()
        await supabase.close()

    async def test_a_public_bucket_is_remarked_upon(
        self, store: SupabaseImages, superuser_dsn: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It works, and everybody who knows a path can look."""
        await store.require_bucket()
        assert "public" not in caplog.text
        hand = await asyncpg.connect(superuser_dsn)
        await hand.execute("update storage.buckets set public = true")
        await hand.close()
        await store.require_bucket()
        assert "the bucket uvian-images is public" in caplog.text

    async def test_storage_that_is_down_is_transient(
        self, store: SupabaseImages, platform: Platform, tmp_path: Path
    ) -> None:
        """And works again when it is back."""
        path = (await store.put(USER, b"x", PNG)).path
        platform.faults.down("storage")
        for call in (lambda: store.put(USER, b"y", PNG), lambda: store.get(path)):
            with pytest.raises(Unavailable):
                await call()
        platform.faults.up("storage")
        assert await store.get(path) == b"x"
        platform.stop()
        with pytest.raises(Unavailable, match="UVIAN_SUPABASE_URL"):
            await store.get(path)
        platform.start()
        assert await store.get(path) == b"x"
