"""A real worker that has been given a picture which would cost minutes."""

from __future__ import annotations

import pytest

from repositories.local import LocalImages
from tests.adapters import over_postgres_only
from tests.executors.imaging.bombs import progressive
from tests.executors.imaging.processes import children, cpu, is_alive, until
from tests.processes.site import Site, Worker

pytestmark = pytest.mark.processes


async def _bombed(site: Site, worker: Worker) -> tuple[str, int]:
    """A refinement whose original is being decoded, and the process that has it."""
    images = LocalImages(site.folder / "images")
    bomb = progressive(4096, 4096, 80, "RGB")
    stored = await images.put(site.user_id, bomb, "image/jpeg")
    await images.close()
    job_id = await site.submit("refinement", image_path=stored.path, refinement_prompt="darker")
    found: set[int] = set()

    def busy() -> set[int]:
        found.update(pid for pid in children(worker.process.pid) if cpu(pid) > 0.3)
        return found

    await until(busy, 30)
    return job_id, found.pop()


@over_postgres_only
async def test_no_decoder_outlives_its_job_or_its_worker(site: Site) -> None:
    """Cancelled: its process is gone with the row's ending. Killed: the worker takes it along."""
    worker = await site.worker(UVIAN_IMAGE_MAX_SECONDS="60")
    job_id, pid = await _bombed(site, worker)
    await site.client.cancel(job_id)
    (row,) = await site.ended(job_id)
    assert row["status"] == "cancelled"
    await until(lambda: not is_alive(pid), 2)
    _, pid = await _bombed(site, worker)
    worker.kill()
    await until(lambda: not is_alive(pid), 2)
