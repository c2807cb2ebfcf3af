"""``python -m uvian_worker.cli``: where the ``uvian`` script is not on the path."""

from __future__ import annotations

from uvian_worker.cli import main

if __name__ == "__main__":
    main()
