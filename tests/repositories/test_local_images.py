"""Pictures in a folder: the contract, and what only a disk can do wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repositories.errors import Misconfigured, NotFound, NotGranted, Transient, Unavailable
from repositories.images import is_image_path
from repositories.local import LocalImages
from repositories.local import images as local_images
from tests.contracts.image_store import PNG, ImageStoreContract

SECRET = "a secret of some length"
USER = str(uuid4())


class Clock:
    """The time, for whoever wants to move it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


def verify(store: LocalImages, url: str) -> str | None:
    """The path of a URL that the gateway would serve."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    path = unquote(parts.path).removeprefix("/v1/files/")
    genuine = store.verify(
        path, expires=query.get("expires", ""), signature=query.get("signature", "")
    )
    return path if genuine else None


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[LocalImages]:
    """A store whose URLs a gateway serves."""
    store = LocalImages(
        tmp_path / "images",
        base_url="https://api.example.com/v1/files/",
        secret=SECRET,
        max_bytes=ImageStoreContract.max_bytes,
        parallel=4,
        clock=clock,
    )
    yield store
    await store.close()


class TestSignedFolder(ImageStoreContract):
    """The contract, with URLs that a gateway checks."""

    @pytest.fixture
    def store(self, store: LocalImages) -> LocalImages:
        """The store of this module."""
        return store

    async def fetch(self, store: LocalImages, url: str) -> bytes | None:
        path = verify(store, url)
        return None if path is None else await store.get(path)


class TestFileUrls(ImageStoreContract):
    """The contract, with URLs that work on this machine alone."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[LocalImages]:
        """A store without a gateway, in a folder whose name needs quoting."""
        store = LocalImages(tmp_path / "my images", max_bytes=self.max_bytes)
        yield store
        await store.close()

    async def fetch(self, store: LocalImages, url: str) -> bytes | None:
        parts = urlsplit(url)
        assert parts.scheme == "file"
        return await asyncio.to_thread(Path(unquote(parts.path)).read_bytes)


class TestPaths:
    """Nothing outside the folder is read, written or removed."""

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        path=st.one_of(
            st.text(),
            st.lists(st.sampled_from(["..", ".", "/", "\\", "%2f", "\0", USER, "a"])).map("".join),
            st.from_regex(r"[0-9a-f-]{36}/[0-9a-f]{64}\.(png|webp|jpg)\s?", fullmatch=True),
        )
    )
    async def test_no_text_leads_anywhere(self, store: LocalImages, path: str) -> None:
        """Of all texts only paths of stored pictures are found, and there are none."""
        with pytest.raises(NotFound):
            await store.get(path)
        assert await store.sign([path], expires_in=60) == {}
        await store.delete([path])

    @given(path=st.text())
    def test_a_path_has_no_room_for_tricks(self, path: str) -> None:
        """What is taken for a path has two parts, without dots in front or anything to decode."""
        if is_image_path(path):
            user, name = path.split("/")
            assert user
            assert not {*user} & set("./\\%\0")
            assert name.count(".") == 1

    async def test_a_linked_user_folder_is_not_followed(
        self, store: LocalImages, tmp_path: Path
    ) -> None:
        """A link in the place of a user's folder leads to nobody's pictures, and takes none."""
        path = (await store.put(USER, b"mine", PNG)).path
        (tmp_path / "images" / USER).rename(tmp_path / "outside")
        (tmp_path / "images" / USER).symlink_to(tmp_path / "outside")
        with pytest.raises(NotFound):
            await store.get(path)
        with pytest.raises(Misconfigured):
            await store.put(USER, b"more", PNG)
        await store.delete([path])
        assert len(list((tmp_path / "outside").iterdir())) == 1

    async def test_a_linked_file_is_not_followed(self, store: LocalImages, tmp_path: Path) -> None:
        """A link in the place of a picture is no picture; storing it replaces the link."""
        path = (await store.put(USER, b"mine", PNG)).path
        secret = tmp_path / "secret"
        secret.write_bytes(b"mine")
        (tmp_path / "images" / path).unlink()
        (tmp_path / "images" / path).symlink_to(secret)
        with pytest.raises(NotFound):
            await store.get(path)
        assert await store.sign([path], expires_in=60) == {}
        await store.put(USER, b"mine", PNG)
        assert not (tmp_path / "images" / path).is_symlink()
        assert await store.get(path) == b"mine"

    async def test_a_fifo_does_not_hang(self, store: LocalImages, tmp_path: Path) -> None:
        """Opening one would wait for ever for somebody who writes."""
        path = (await store.put(USER, b"mine", PNG)).path
        (tmp_path / "images" / path).unlink()
        os.mkfifo(tmp_path / "images" / path)
        with pytest.raises(NotFound):
            await store.get(path)

    async def test_a_folder_is_no_picture(self, store: LocalImages, tmp_path: Path) -> None:
        """Not even one with a picture's name."""
        path = f"{USER}/{'0' * 64}.png"
        (tmp_path / "images" / path).mkdir(parents=True)
        with pytest.raises(NotFound):
            await store.get(path)
        assert await store.sign([path], expires_in=60) == {}

    async def test_the_folder_itself_may_be_a_link(self, tmp_path: Path) -> None:
        """The operator put it there, perhaps to a larger disk."""
        (tmp_path / "disk").mkdir()
        (tmp_path / "images").symlink_to(tmp_path / "disk")
        store = LocalImages(tmp_path / "images")
        assert await store.get((await store.put(USER, b"x", PNG)).path) == b"x"
        await store.close()

    async def test_pictures_are_private(self, store: LocalImages, tmp_path: Path) -> None:
        """Other users of the machine see neither names nor contents."""
        path = (await store.put(USER, b"x", PNG)).path
        file = tmp_path / "images" / path
        assert [each.stat().st_mode & 0o077 for each in (file, file.parent)] == [0, 0]


#: A disk that is broken, full, over its quota or read only for a while; a network drive that is away.
AWAY = [
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.ENFILE,
    errno.EMFILE,
    errno.ENOMEM,
    errno.ENODEV,
]


class TestWriting:
    """A picture is there as a whole or not at all."""

    async def test_what_is_there_is_not_written_again(
        self, store: LocalImages, tmp_path: Path
    ) -> None:
        """The file is the same one, untouched."""
        file = tmp_path / "images" / (await store.put(USER, b"x", PNG)).path
        before = file.stat()
        await store.put(USER, b"x", PNG)
        assert file.stat() == before

    async def test_a_file_cut_short_is_written_again(
        self, store: LocalImages, tmp_path: Path
    ) -> None:
        """What a broken disk left of a picture does not pass for it."""
        path = (await store.put(USER, b"whole", PNG)).path
        (tmp_path / "images" / path).write_bytes(b"wh")
        await store.put(USER, b"whole", PNG)
        assert await store.get(path) == b"whole"

    @pytest.mark.parametrize("step", ["fsync", "rename"])
    async def test_a_failure_leaves_nothing(
        self, store: LocalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        """No half picture under its name, no draft beside it, and it may be tried again."""

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(local_images.os, step, fail)  # type: ignore[attr-defined]
            with pytest.raises(Unavailable, match="No space left on device"):
                await store.put(USER, b"x", PNG)
        assert list((tmp_path / "images" / USER).iterdir()) == []
        assert await store.get((await store.put(USER, b"x", PNG)).path) == b"x"

    async def test_the_content_is_on_disk_before_its_name(
        self, store: LocalImages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Flush, rename, flush the folder: in another order a power failure leaves half."""
        steps: list[str] = []

        def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **named: Any) -> Any:
                steps.append(name)
                return real(*arguments, **named)

            return step

        for name in ("fsync", "rename"):
            monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
        await store.put(USER, b"x", PNG)
        assert steps == ["fsync", "rename", "fsync"]

    @pytest.mark.parametrize(
        ("number", "error", "transient"),
        [
            (errno.EACCES, NotGranted, False),
            (errno.EPERM, NotGranted, False),
            (errno.ENAMETOOLONG, Misconfigured, False),
            *((number, Unavailable, True) for number in AWAY),
        ],
    )
    async def test_the_disk_is_translated(
        self,
        store: LocalImages,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        error: type[Exception],
        transient: bool,
    ) -> None:
        """What passes by itself may be tried again, what the operator must fix is said so."""
        path = (await store.put(USER, b"x", PNG)).path

        def fail(*_: object, **__: object) -> int:
            raise OSError(number, os.strerror(number), "/a/path/of/the/machine")

        monkeypatch.setattr(os, "open", fail)
        for call in (store.put(USER, b"y", PNG), store.get(path), store.delete([path])):
            with pytest.raises(error) as caught:
                await call
            assert isinstance(caught.value, Transient) is transient
            assert "/a/path" not in str(caught.value)

    async def test_a_drive_that_is_not_mounted_is_away(
        self, store: LocalImages, tmp_path: Path
    ) -> None:
        """Its pictures are not missing, and nothing is written in its place until it is back."""
        path = (await store.put(USER, b"x", PNG)).path
        (tmp_path / "images").rename(tmp_path / "unmounted")
        for call in (store.put(USER, b"y", PNG), store.get(path), store.sign([path], expires_in=9)):
            with pytest.raises(Unavailable, match="mounted"):
                await call
        assert not (tmp_path / "images").exists()
        (tmp_path / "unmounted").rename(tmp_path / "images")
        assert await store.get(path) == b"x"
        await store.put(USER, b"y", PNG)

    async def test_the_empty_place_of_a_drive_is_not_taken_for_it(
        self, store: LocalImages, tmp_path: Path
    ) -> None:
        """What is there where nothing is mounted is another device's folder, and empty."""
        path = (await store.put(USER, b"x", PNG)).path
        (tmp_path / "images").rename(tmp_path / "drive")
        (tmp_path / "images").mkdir()
        store._device = -1  # what the drive would have
        for call in (store.put(USER, b"y", PNG), store.get(path)):
            with pytest.raises(Unavailable, match="mounted"):
                await call
        (tmp_path / "images").rmdir()
        (tmp_path / "drive").rename(tmp_path / "images")
        assert await store.get(path) == b"x"

    async def test_the_event_loop_does_not_wait_for_the_disk(
        self, store: LocalImages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a disk hangs everything else goes on."""
        released = threading.Event()
        monkeypatch.setattr(os, "fsync", lambda _: released.wait(10))
        putting = asyncio.create_task(store.put(USER, b"x", PNG))
        started = time.monotonic()
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert time.monotonic() - started < 5
        assert not putting.done()
        released.set()
        await putting

    async def test_parallel_writes_are_bounded(
        self, store: LocalImages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many at a time as were allowed (4 here), and not one after another."""
        writing, most = 0, 0
        lock = threading.Lock()
        together = threading.Barrier(4)

        def fsync(_: int) -> None:
            nonlocal writing, most
            with lock:
                writing += 1
                most = max(most, writing)
            together.wait(10)  # passes only when four write at a time
            with lock:
                writing -= 1

        monkeypatch.setattr(os, "fsync", fsync)
        await asyncio.gather(*(store.put(USER, bytes([n]), PNG) for n in range(1, 9)))
        assert most == 4


class TestSigning:
    """A URL opens one picture for a while."""

    @pytest.fixture
    async def url(self, store: LocalImages) -> str:
        """A URL that is good for a minute."""
        path = (await store.put(USER, b"x", PNG)).path
        return (await store.sign([path], expires_in=60))[path]

    def test_it_names_the_gateway_once(self, url: str) -> None:
        """A slash at the end of the base is no second one."""
        assert url.startswith(f"https://api.example.com/v1/files/{USER}/")

    def test_it_expires(self, store: LocalImages, url: str, clock: Clock) -> None:
        """It works for as long as was asked, and no longer."""
        clock.now += 59
        assert verify(store, url) is not None
        clock.now += 2
        assert verify(store, url) is None

    @pytest.mark.parametrize(
        "change",
        [
            lambda url: url.replace("expires=1", "expires=2"),
            lambda url: url.replace(USER, str(uuid4())),
            lambda url: url.replace(".png", ".jpg"),
            lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
            lambda url: url.partition("&signature")[0],
            lambda url: url.partition("?")[0],
        ],
    )
    def test_it_cannot_be_changed(
        self, store: LocalImages, url: str, change: Callable[[str], str]
    ) -> None:
        """Another time, user, picture or signature is refused."""
        assert verify(store, change(url)) is None

    def test_another_secret_signs_nothing(self, url: str, tmp_path: Path, clock: Clock) -> None:
        """A store with another secret, or with none, accepts no URL of this one."""
        other = LocalImages(tmp_path, base_url="x", secret=SECRET + "2", clock=clock)
        assert verify(other, url) is None
        assert verify(LocalImages(tmp_path, clock=clock), url) is None

    def test_without_a_secret_the_empty_one_opens_nothing(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        """Signatures made with an empty key are everybody's."""
        store = LocalImages(tmp_path, clock=clock)
        path = f"{USER}/{'0' * 64}.png"
        expires = str(int(clock.now) + 60)
        assert not store.verify(
            path, expires=expires, signature=LocalImages._signature(store, path, expires)
        )

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(path=st.text(), expires=st.text(), signature=st.text())
    def test_nonsense_is_refused_without_an_error(
        self, store: LocalImages, path: str, expires: str, signature: str
    ) -> None:
        """Whatever stands in a URL, the answer is no."""
        assert store.verify(path, expires=expires, signature=signature) is False

    def test_a_short_secret_is_refused(self, tmp_path: Path) -> None:
        """Signed URLs are as safe as their secret."""
        with pytest.raises(ValueError, match="at least 16 characters"):
            LocalImages(tmp_path, base_url="https://x", secret="short")
