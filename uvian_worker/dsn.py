"""``repositories.dsn`` for what an API loads: read from its file, since a team's own package may be called
``repositories``. The three packages are installed side by side.
"""

from __future__ import annotations

__all__ = ["BadConnectionString", "Url", "named_nearest", "read", "split_url"]

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repositories.dsn import BadConnectionString, Url, named_nearest, read, split_url
else:
    _file = Path(__file__).resolve().parents[1] / "repositories" / "dsn.py"
    _spec = spec_from_file_location("uvian_worker._dsn", _file)
    _loaded = sys.modules[_spec.name] = module_from_spec(_spec)
    _spec.loader.exec_module(_loaded)
    BadConnectionString, Url = _loaded.BadConnectionString, _loaded.Url
    named_nearest, read, split_url = _loaded.named_nearest, _loaded.read, _loaded.split_url
