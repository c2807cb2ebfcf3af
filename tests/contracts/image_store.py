"""What every ImageStore promises. An adapter's tests subclass it and say how to make one.

class TestLocalImages(ImageStoreContract):
    @pytest.fixture
    async def store(self, tmp_path): ...
    async def fetch(self, store, url): ...
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from repositories.errors import DataError, NotFound
from repositories.images import CONTENT_TYPES, ImageStore, UserImages, content_type_of

PNG = "image/png"

#: Names that have led out of folders elsewhere; ``{path}`` is a path that exists.
HOSTILE = [
    "",
    ".",
    "..",
    "/",
    "//",
    "../{path}",
    "./{path}",
    "/{path}",
    "//{path}",
    "{path}/",
    "{path}/..",
    "{path}\n",
    "{path}\x00",
    "{path}\x00.png",
    "{path}%00",
    " {path}",
    "{path} ",
    "{path}?x=1",
    "{path}#x",
    "{user}//{name}",
    "{user}/./{name}",
    "{user}/../{user}/{name}",
    "{user}%2f{name}",
    "{user}%2F{name}",
    "{user}\\{name}",
    "{user}/..\\{name}",
    "{user}/%2e%2e/{user}/{name}",
    "{USER}/{name}",
    "{user}/{NAME}",
    "{name}",
    "{user}",
    "{user}/",
    "uvian-images/{path}",
    "file:///{path}",
    "/etc/hostname",
    "../../../../etc/hostname",
    "\ud800/{name}",
]


def hostile_paths(path: str) -> list[str]:
    """Every way to write ``path``, or what is beside it, that must not work."""
    user, name = path.split("/")
    shapes = {"path": path, "user": user, "name": name, "USER": user.upper(), "NAME": name.upper()}
    return [shape.format(**shapes) for shape in HOSTILE]


class ImageStoreContract:
    """One promise, every implementation."""

    #: What the fixture's store allows; small, so that the limit is cheap to reach.
    max_bytes = 100_000

    @pytest.fixture
    @abstractmethod
    def store(self) -> AsyncIterator[ImageStore]:
        """An empty store that allows ``max_bytes``; closed after the test."""
        raise NotImplementedError

    @abstractmethod
    async def fetch(self, store: Any, url: str) -> bytes | None:
        """What somebody who has only the URL gets; None when it is refused."""
        raise NotImplementedError

    @pytest.fixture
    def user(self) -> str:
        """A user's id."""
        return str(uuid4())

    @pytest.fixture
    def images(self, store: ImageStore, user: str) -> UserImages:
        """The pictures of ``user``."""
        return UserImages(store, user)

    @pytest.mark.parametrize("content_type", CONTENT_TYPES)
    async def test_what_was_put_is_got(
        self, store: ImageStore, user: str, content_type: str
    ) -> None:
        """The path is the user's and the content's, and the bytes are the same."""
        content = b"a picture \x00\xff"
        stored = await store.put(user, content, content_type)
        digest = hashlib.sha256(content).hexdigest()
        assert stored.path == f"{user}/{digest}.{CONTENT_TYPES[content_type]}"
        assert (stored.content_type, stored.size) == (content_type, len(content))
        assert content_type_of(stored.path) == content_type
        assert await store.get(stored.path) == content

    async def test_putting_again_is_a_success(self, store: ImageStore, user: str) -> None:
        """A retried job stores what it has stored already."""
        first = await store.put(user, b"same", PNG)
        assert await store.put(user, b"same", PNG) == first
        assert await store.get(first.path) == b"same"

    async def test_the_same_picture_at_the_same_time(self, store: ImageStore, user: str) -> None:
        """Twenty writers of one picture all succeed."""
        answers = await asyncio.gather(*(store.put(user, b"same", PNG) for _ in range(20)))
        assert len({stored.path for stored in answers}) == 1
        assert await store.get(answers[0].path) == b"same"

    async def test_users_do_not_share_pictures(self, store: ImageStore) -> None:
        """The same picture of two users is two: one may go and the other stays."""
        one = await store.put(str(uuid4()), b"same", PNG)
        other = await store.put(str(uuid4()), b"same", PNG)
        await store.delete([one.path])
        with pytest.raises(NotFound):
            await store.get(one.path)
        assert await store.get(other.path) == b"same"

    @pytest.mark.parametrize(
        ("content", "content_type"),
        [(b"x", "text/html"), (b"x", "image/svg+xml"), (b"x", ""), (b"", PNG)],
    )
    async def test_what_is_no_picture_is_refused(
        self, store: ImageStore, user: str, content: bytes, content_type: str
    ) -> None:
        """Other types, and nothing at all, are a fault of the data."""
        with pytest.raises(DataError):
            await store.put(user, content, content_type)

    async def test_the_limit_is_exact(self, store: ImageStore, user: str) -> None:
        """As many bytes as are allowed are stored; one more is refused, and nothing is kept."""
        most = b"x" * self.max_bytes
        assert await store.get((await store.put(user, most, PNG)).path) == most
        with pytest.raises(DataError, match=str(self.max_bytes)):
            await store.put(user, most + b"x", PNG)
        digest = hashlib.sha256(most + b"x").hexdigest()
        with pytest.raises(NotFound):
            await store.get(f"{user}/{digest}.png")

    @pytest.mark.parametrize("user_id", ["", "..", ".", "a/b", "A", "a%2fb", "a\x00", "x" * 65])
    async def test_a_user_is_one_plain_name(self, store: ImageStore, user_id: str) -> None:
        """No user's id can become a path of its own."""
        with pytest.raises(DataError):
            await store.put(user_id, b"x", PNG)

    async def test_a_missing_picture_is_not_found(self, store: ImageStore, user: str) -> None:
        """Before anything is stored, and beside what is."""
        missing = f"{user}/{'0' * 64}.png"
        with pytest.raises(NotFound):
            await store.get(missing)
        await store.put(user, b"x", PNG)
        with pytest.raises(NotFound):
            await store.get(missing)

    async def test_hostile_paths_are_answered_like_missing_ones(
        self, store: ImageStore, user: str
    ) -> None:
        """Read, sign and delete know one form of path; all else is not there, in the same words."""
        stored = await store.put(user, b"kept", PNG)
        with pytest.raises(NotFound) as absent:
            await store.get(f"{user}/{'0' * 64}.png")
        hostile = hostile_paths(stored.path)
        for path in hostile:
            with pytest.raises(NotFound) as refused:
                await store.get(path)
            assert str(refused.value) == str(absent.value), repr(path)
        assert await store.sign(hostile, expires_in=60) == {}
        await store.delete(hostile)
        assert await store.get(stored.path) == b"kept"

    async def test_a_signed_url_gives_the_picture(self, store: ImageStore, user: str) -> None:
        """Whoever has the URL gets the bytes, without more credentials."""
        stored = await store.put(user, b"shown", PNG)
        urls = await store.sign([stored.path], expires_in=60)
        assert list(urls) == [stored.path]
        assert await self.fetch(store, urls[stored.path]) == b"shown"

    async def test_many_are_signed_in_one_call(self, store: ImageStore, user: str) -> None:
        """Those that do not exist are left out; none is an empty answer."""
        paths = [(await store.put(user, bytes([n]), PNG)).path for n in range(1, 6)]
        missing = f"{user}/{'0' * 64}.png"
        urls = await store.sign([missing, *paths, paths[0]], expires_in=60)
        assert urls.keys() == set(paths)
        assert len(set(urls.values())) == 5
        assert await store.sign([], expires_in=60) == {}

    async def test_deleting_is_final_and_repeatable(self, store: ImageStore, user: str) -> None:
        """What is gone is gone, also for the second call; the rest stays."""
        gone, kept = [(await store.put(user, content, PNG)).path for content in (b"1", b"2")]
        for _ in range(2):
            await store.delete([gone, f"{user}/{'0' * 64}.png"])
        await store.delete([])
        with pytest.raises(NotFound):
            await store.get(gone)
        assert await store.get(kept) == b"2"
        assert await store.get((await store.put(user, b"1", PNG)).path) == b"1"

    async def test_closing_twice_is_fine(self, store: ImageStore) -> None:
        """Whoever closes need not know who closed before."""
        await store.close()
        await store.close()

    async def test_many_pictures_keep_their_order(self, images: UserImages) -> None:
        """A user's pictures are stored in parallel and answered in the order they were given."""
        pictures = [(bytes([n]) * 20_000, PNG) for n in range(1, 31)]
        stored = await images.put_many(pictures)
        assert [await images.get(each.path) for each in stored] == [each[0] for each in pictures]
        assert await images.put_many([]) == []

    async def test_one_bad_picture_of_many_is_the_error(self, images: UserImages) -> None:
        """The others are stored as a whole before it is raised."""
        with pytest.raises(DataError):
            await images.put_many([(b"1", PNG), (b"", PNG), (b"2", PNG)])
        for content in (b"1", b"2"):
            path = f"{images.user_id}/{hashlib.sha256(content).hexdigest()}.png"
            assert await images.get(path) == content

    async def test_another_users_picture_is_not_there(
        self, store: ImageStore, images: UserImages
    ) -> None:
        """Bound to a user, the store answers another's path in the words of a missing one."""
        own = (await images.put(b"mine", PNG)).path
        other = (await store.put(str(uuid4()), b"theirs", PNG)).path
        with pytest.raises(NotFound) as absent:
            await images.get(f"{images.user_id}/{'0' * 64}.png")
        for path in [other, *hostile_paths(own), *hostile_paths(other)]:
            with pytest.raises(NotFound) as refused:
                await images.get(path)
            assert str(refused.value) == str(absent.value)
        assert (await images.sign([own, other], expires_in=60)).keys() == {own}
        assert await images.sign([other], expires_in=60) == {}
