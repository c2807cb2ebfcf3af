"""``uvian types``: the operator opens, limits and prices, and nothing is open before."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Programs, Uvian
from uvian_worker.cli.errors import ExitCode

pytestmark = pytest.mark.database


def of(uvian: Uvian, type_: str) -> dict[str, object]:
    """What is said of this type."""
    types = uvian.document("types", "list", "--json")["types"]
    return dict(next(each for each in types if each["type"] == type_))


def test_nothing_is_open_at_first(uvian: Uvian) -> None:
    """The types of ours, and the one that a worker will bring."""
    uvian.sql("insert into uvian.job_types (type) values ('theirs')")
    types = uvian.document("types", "list", "--json")["types"]
    assert [each["type"] for each in types] == ["chat", "generation", "refinement", "theirs"]
    assert not any(each["browser"] or each["anonymous"] for each in types)
    assert uvian("types", "list").stdout.count("your API alone") == 4


def test_a_type_is_opened_and_closed(uvian: Uvian) -> None:
    """With its price and limits at once; closed again they stay."""
    done = uvian.document(
        "types", "open", "generation", "--price", "2.5", "--queued", "9", "--running", "none",
        "--anonymous", "--yes", "--json",
    )["type"]  # fmt: skip
    assert done == of(uvian, "generation")
    assert (done["browser"], done["anonymous"], done["price"]) == (True, True, "2.500000")
    assert (done["max_queued_per_user"], done["max_running_per_user"]) == (9, None)
    shown = " ".join(uvian("types", "open", "generation", "--running", "2").stdout.split())
    assert (
        "open to signed-in users, anonymous ones too; 2.5 credits; 9 waiting and 2 running" in shown
    )
    assert uvian("types", "close", "generation").exit_code == ExitCode.OK
    assert of(uvian, "generation") == done | {"browser": False, "max_running_per_user": 2}
    off = uvian.document("types", "close", "generation", "--all", "--json")["type"]
    assert not off["enabled"]
    assert "nobody: switched off" in uvian("types", "list").stdout
    assert uvian.document("types", "open", "generation", "--json")["type"]["enabled"]


def test_what_is_missing_is_said_and_not_opened(uvian: Uvian) -> None:
    """Nobody is there to be asked: exit code 2, and the options that say what is meant."""
    refused = uvian("types", "open", "chat")
    said = " ".join(refused.stderr.split())
    assert refused.exit_code == ExitCode.USAGE
    assert "chat is not opened. It has no price" in said
    assert "no limit of queued and running jobs" in said
    assert "--price N (0: free); --queued N --running N (or none). Or --yes" in said
    assert not of(uvian, "chat")["browser"]
    again = uvian("types", "open", "chat", "--price", "0", "--running", "3", "--json")
    assert "no limit of queued jobs" in again.stderr
    assert "--price" not in again.stderr
    assert not of(uvian, "chat")["browser"]
    words = ("--price", "0", "--queued", "none", "--running", "none")
    meant = uvian.document("types", "open", "chat", *words, "--json")["type"]
    assert (meant["browser"], meant["price"]) == (True, "0.000000")
    uvian("types", "close", "chat")
    uvian("types", "limit", "chat", "--queued", "1", "--running", "1")
    assert uvian("types", "open", "chat").exit_code == ExitCode.OK  # all has been said


@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
def test_who_is_at_a_terminal_is_asked(uvian: Uvian, programs: Programs) -> None:
    """No, Ctrl-C, and yes."""
    limits = ("--queued", "5", "--running", "1")
    for keys, code in (
        ("n\n", ExitCode.USAGE),
        ("\x03", ExitCode.INTERRUPTED),
        ("y\n", ExitCode.OK),
    ):
        assert not of(uvian, "chat")["browser"]
        terminal = programs.on_terminal("types", "open", "chat", *limits)
        terminal.says("gets it for nothing")
        terminal.says("[y/N]")
        terminal.types(keys)
        assert terminal.ends() == code, terminal.output
    assert of(uvian, "chat")["browser"]


def test_limits_are_set_and_lifted(uvian: Uvian) -> None:
    """Each by its option; what is not named stays."""
    words = ("types", "limit", "chat", "--json")
    chat = uvian.document(
        *words, "--queued", "0", "--running", "3", "--input-bytes", "500", "--model", "small",
        "--model", "large", "--max-tokens", "900", "--system-prompt", "You sell ships.",
    )["type"]  # fmt: skip
    assert (chat["max_queued_per_user"], chat["max_running_per_user"]) == (0, 3)
    assert (chat["max_input_bytes"], chat["models"]) == (500, ["small", "large"])
    assert (chat["max_tokens"], chat["system_prompt"]) == (900, "You sell ships.")
    assert "models: small, large; 900 tokens at most" in uvian(*words[:3], "--queued", "1").stdout
    free = uvian.document(
        *words, "--queued", "none", "--model", "none", "--max-tokens", "none",
        "--system-prompt", "none",
    )["type"]  # fmt: skip
    names = ("max_queued_per_user", "models", "max_tokens", "system_prompt")
    assert [free[name] for name in names] == [None] * 4
    assert (free["max_running_per_user"], free["max_input_bytes"]) == (3, 500)


def test_prices_are_set_and_taken_away(uvian: Uvian) -> None:
    """0 is a price too; without one it is free until somebody asks."""
    for amount, price in (("3", "3.000000"), ("0", "0.000000"), ("none", None)):
        done = uvian.document("types", "price", "refinement", amount, "--json")["type"]
        assert done["price"] == price
    assert uvian("types", "price", "refinement", "2").stdout.count("2 credits") == 1
    assert "; 1 credit;" in uvian("types", "price", "refinement", "1").stdout


@pytest.mark.parametrize("adapter", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("open", "generatoin", "--yes"), ExitCode.REFUSED, "Did you mean generation?"),
        (("close", "nothing"), ExitCode.REFUSED, "There is no job type 'nothing'"),
        (("limit", "chat"), ExitCode.USAGE, "Say which limit"),
        (("limit", "chat", "--queued", "many"), ExitCode.USAGE, "whole number from 0, or none"),
        (("limit", "chat", "--running", "0"), ExitCode.USAGE, "whole number from 1, or none"),
        (("limit", "chat", "--queued", "99999999999"), ExitCode.USAGE, "whole number"),
        (("limit", "chat", "--system-prompt", "x" * 40_000), ExitCode.USAGE, "cannot be set"),
        (("price", "chat", "much"), ExitCode.USAGE, "is no price"),
        (("price", "chat", "--", "-1"), ExitCode.USAGE, "0 or more"),
        (("price", "chat", "NaN"), ExitCode.USAGE, "0 or more"),
        (("open", "chat", "--price", "0.0000001"), ExitCode.USAGE, "six decimals at most"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    uvian: Uvian, words: tuple[str, ...], code: ExitCode, said: str
) -> None:
    """A sentence with the next step, and the exit code of the manual."""
    before = uvian.document("types", "list", "--json")
    result = uvian("types", *words)
    assert result.exit_code == code, result.output
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert uvian.document("types", "list", "--json") == before
