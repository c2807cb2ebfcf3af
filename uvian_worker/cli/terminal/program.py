"""How this program is called from the shell that it was called from."""

from __future__ import annotations

__all__ = ["as_called", "program"]

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

#: Where a sentence gives a command: alone, after a colon, or in quotes.
_COMMAND: Final = re.compile(r"(?:^|(?<=[:→] )|(?<=`))uvian (?=[a-z-])", re.MULTILINE)


def as_called(sentence: str) -> str:
    """The commands in it, as this shell finds them."""
    return _COMMAND.sub(lambda _: f"{program()} ", sentence)


def program(*, elsewhere: bool = False) -> str:
    """``uvian`` where that is found and is this one; else a path to it, or to its interpreter.

    ``elsewhere`` is another shell in the same folder: there no environment of ours is activated.
    """
    script = _script()
    if script is None:
        return f"{shlex.quote(sys.executable)} -m uvian_worker.cli"
    if _is_on_path(script) and not (elsewhere and _is_activated(script)):
        return script.name
    here = Path.cwd()
    absolute = here / script
    path = absolute.relative_to(here) if absolute.is_relative_to(here) else absolute
    return shlex.quote(str(path) if len(path.parts) > 1 else f"./{path}")


def _script() -> Path | None:
    """What was called, or what stands beside the interpreter that was."""
    called = Path(sys.argv[0])
    beside = Path(sys.executable).with_name("uvian")
    candidates = (called,) if called.name == beside.name else ()
    return next((path for path in (*candidates, beside) if path.is_file()), None)


def _is_on_path(script: Path) -> bool:
    found = shutil.which(script.name)
    return found is not None and Path(found).samefile(script)


def _is_activated(script: Path) -> bool:
    """Whether it is found because its environment is activated, in this shell alone."""
    environment = os.environ.get("VIRTUAL_ENV")
    return environment is not None and script.absolute().is_relative_to(environment)
