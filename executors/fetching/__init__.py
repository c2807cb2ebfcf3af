"""Files from addresses that somebody else wrote: fetched from the public internet, and nowhere else.

addresses.py  which addresses are public, whatever notation hides them
urls.py       which URLs are looked at at all
fetcher.py    the one way out: look up, check, connect to what was checked, read within limits
"""

from __future__ import annotations

__all__ = ["Fetcher"]

from executors.fetching.fetcher import Fetcher
