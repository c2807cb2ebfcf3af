"""Writes what is said of settings and commands in more than one place; `--check` only compares.

`.env.example`, the table of settings in `README.md` and the commands in `docs/cli.md` come from
`uvian_worker.config.Config` and from the commands themselves.

python scripts/generate_reference.py [--check]
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import typer.main  # noqa: E402 — the project may not be installed

from uvian_worker.cli import app  # noqa: E402
from uvian_worker.config import settings as config  # noqa: E402

#: Defaults that depend on the machine or on another setting, in words.
IN_WORDS = {
    "cpu_threads": "one per core, 8 at most",
    "images": "where the database is: `supabase` with `UVIAN_DATABASE=supabase`, else `local`",
}

#: The settings that the README shows: the first ones to know. All of them are in `.env.example`.
IN_README = (
    "redis_url",
    "database_url",
    "database",
    "supabase_url",
    "supabase_key",
    "images",
    "max_jobs",
    "image_model",
    "chat_model",
)


class Setting(NamedTuple):
    """One field of Config, as its source says it."""

    section: str  #: the subject
    name: str
    default: str | None  #: as it is written in an environment; None when there is none
    words: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return config.PREFIX + self.name.upper()


def settings() -> list[Setting]:
    """Every setting, subject by subject, in the order of the source."""
    found: list[Setting] = []
    for subject in config.SUBJECTS:
        (cls,) = ast.parse(inspect.getsource(subject)).body
        assert isinstance(cls, ast.ClassDef)
        section = str(ast.get_docstring(cls)).partition(".")[0]
        for field, words in _documented(cls):
            assert isinstance(field.target, ast.Name)
            found.append(Setting(section, field.target.id, _default(field), words))
    return found


def _documented(cls: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    for field, after in zip(cls.body, [*cls.body[1:], None], strict=False):
        if not isinstance(field, ast.AnnAssign):
            continue
        has_words = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        assert has_words, f"line {field.lineno}: a setting without a docstring"
        assert isinstance(after, ast.Expr)
        assert isinstance(after.value, ast.Constant)
        yield field, " ".join(str(after.value.value).split())


def _default(field: ast.AnnAssign) -> str | None:
    assert isinstance(field.target, ast.Name)
    if field.target.id in IN_WORDS or field.value is None:
        return None
    names = {"SecretStr": str, "Path": str}
    code = compile(ast.Expression(field.value), "<default>", "eval")
    value = eval(code, names)  # our own source
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def env_example() -> str:
    """Every setting, commented out, under its sentence."""
    lines = [
        "# Settings of uvian-worker: copy to .env and change what you need.",
        "# What is commented out has the default shown; the environment wins over this file.",
        "# Written by scripts/generate_reference.py from uvian_worker/config.",
    ]
    section = None
    for setting in settings():
        if setting.section != section:
            section = setting.section
            lines += ["", f"# --- {section} ".ljust(78, "-")]
        lines += ["", f"# {setting.words}"]
        if setting.name in IN_WORDS:
            lines.append(f"# By default {IN_WORDS[setting.name]}.")
        lines.append(f"#{setting.variable}={setting.default or ''}")
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """The settings most people need, as Markdown."""
    lines = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for setting in settings():
        if setting.name in IN_README:
            default = IN_WORDS.get(setting.name) or (
                f"`{setting.default}`" if setting.default else ""
            )
            lines.append(f"| `{setting.variable}` | {default} | {setting.words} |")
    return "\n".join(lines)


def commands() -> str:
    """Every command with its arguments and options, as Markdown."""
    return "\n\n".join(_pages(typer.main.get_command(app), "uvian"))


def _pages(command: Any, path: str) -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        if getattr(child, "commands", None):
            yield from _pages(child, f"{path} {name}")
        else:
            yield _page(child, f"{path} {name}")


def _page(command: Any, path: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([path, *(_argument(argument) for argument in arguments)])
    text = inspect.cleandoc(command.help or "")
    parts = [f"### `{usage}`", text]
    rows = [(f"`{_plain(a)}`", a.help) for a in arguments if a.help]
    rows += [(_names(option), _help(option)) for option in options]
    if rows:
        parts.append("\n".join(["| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]))
    return "\n\n".join(parts)


def _argument(argument: Any) -> str:
    name = _plain(argument) + (" …" if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _plain(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper()


def _names(option: Any) -> str:
    name = max(option.opts, key=len)
    return f"`{name}`" if option.is_flag else f"`{name} …`"


def _help(option: Any) -> str:
    text = " ".join(str(option.help).replace("\\[", "[").replace("<", "&lt;").split())
    if option.default not in (None, False, "") and not option.is_flag:
        text += f" [default: {option.default}]"
    return text


def placed(path: Path, mark: str, content: str) -> str:
    """A page with what stands between two marks replaced."""
    page = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark}: written by scripts/generate_reference.py -->", f"<!-- /{mark} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    assert pattern.search(page), f"{path.name} has no {begin}"
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", page)


def pages() -> dict[Path, str]:
    """Every file that is written, or has a part that is."""
    readme, cli = ROOT / "README.md", ROOT / "docs" / "cli.md"
    return {
        ROOT / ".env.example": env_example(),
        readme: placed(readme, "settings", settings_table()),
        cli: placed(cli, "commands", commands()),
    }


def main() -> int:
    """Write the files; with `--check` say which differ."""
    checking = "--check" in sys.argv
    stale = []
    for path, content in pages().items():
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not checking:
            path.write_text(content, encoding="utf-8")
    if stale:
        verb = "out of date: run scripts/generate_reference.py" if checking else "written"
        print(f"{', '.join(stale)} {verb}")
    return 1 if stale and checking else 0


if __name__ == "__main__":
    sys.exit(main())
