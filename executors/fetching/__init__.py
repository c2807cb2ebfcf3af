"""Files at URLs that a user or a vendor wrote: fetched from the public internet, and from nowhere else.

addresses.py  which addresses are public, whatever notation hides them
urls.py       which URLs may be fetched at all
fetcher.py    the one way out: look up, check, connect to what was checked, read within limits
"""

from __future__ import annotations

__all__ = ["Fetcher"]

from executors.fetching.fetcher import Fetcher
