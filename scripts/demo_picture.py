"""Draws docs/images/demo.svg: a real run of the demo, as a terminal of 100 columns shows it.

    .venv/bin/python scripts/demo_picture.py [output file]

The run is a real one, on embedded servers in a temporary folder; only the screen is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from uvian_worker.cli.demo import PROMPT, REFINEMENT, THEME, conclude, introduce, look_back
from uvian_worker.local.demo import DemoOrder, run_demo

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "images" / "demo.svg"
COLUMNS = 100


def picture() -> str:
    """The screen at the end of a run, as SVG."""
    order = DemoOrder(PROMPT, THEME, REFINEMENT)
    screen = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    results = asyncio.run(run_demo(order))
    assert all(result.succeeded for result in results)
    screen.print(Text.assemble(("$ ", "bold green"), "uvian demo"))
    for result in results:
        introduce(screen, result.shown)
        look_back(screen, result)
    conclude(screen, results)
    return without_fonts(screen.export_svg(title="uvian demo"))


def without_fonts(svg: str) -> str:
    """Nothing is loaded from elsewhere: the reader's own monospaced font will do."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    return re.sub(r"\n\s*\n+", "\n", re.sub(r"terminal-\d+", "terminal", svg))


def main() -> None:
    """Write the picture."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    output = output.absolute()
    # In an activated environment: the screen says `uvian`, and no path of this machine.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="uvian-") as folder, contextlib.chdir(folder):
        svg = picture()
        assert str(ROOT) not in svg
        assert folder not in svg
        output.write_text(svg, encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
