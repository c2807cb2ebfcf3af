"""One reading of a database's errors: for the worker, the Python client and the TypeScript client."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from postgrest import APIError

from repositories import errors
from repositories.postgres.errors import translated as over_asyncpg
from repositories.supabase.errors import translated as over_the_api
from uvian_common.database_errors import CODES, Fault, fault_of, fault_of_answer
from uvian_worker.client import calls

ROOT = Path(__file__).parents[2]

#: Every SQLSTATE that asyncpg knows, PostgREST's codes, and what stands where nothing knows a code.
STATES = sorted(
    {
        str(state)
        for kind in vars(asyncpg.exceptions).values()
        if (state := getattr(kind, "sqlstate", None))
    }
    | {"25P04", "57P04", "57P05", "72000", "PT402", "PT404", "PT418"}
)
REST = [f"PGRST{n}" for n in ("000", "001", "002", "003", "100", "102", "106", "116", "125")] + [
    f"PGRST{n}" for n in ("117", "200", "202", "203", "204", "205", "300", "301", "302", "303")
]
STATUSES = [*range(400, 432), 451, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 530, 540, 544]

#: What poolers say under codes that mean several things, and what becomes of it.
SENTENCES = [
    ("XX000", "Max client connections reached", Fault.AWAY),
    ("XX000", "(EMAXCONN) max client connections reached, limit: 200", Fault.AWAY),
    ("XX000", "(EMAXCONNSESSION) max clients reached in session mode", Fault.AWAY),
    ("XX000", "MaxClientsInSessionMode: max clients reached", Fault.AWAY),
    ("XX000", "Too many clients already", Fault.AWAY),
    ("XX000", "DbHandler exited", Fault.AWAY),
    ("XX000", "(EDBHANDLEREXITED) connection to database closed. Check logs", Fault.AWAY),
    ("XX000", "(ECHECKOUTTIMEOUT) unable to check out connection from the pool", Fault.AWAY),
    ("XX000", "Unable to check out process from the pool due to timeout", Fault.AWAY),
    ("XX000", "(ECIRCUITBREAKER) too many authentication errors", Fault.AWAY),
    ("XX000", "(EAUTHQUERY) authentication query failed: connection not available", Fault.AWAY),
    ("XX000", "{:shutdown, :db_termination}", Fault.AWAY),
    ("XX000", "server closed the connection unexpectedly", Fault.AWAY),
    ("XX000", "Error while sending query", Fault.AWAY),
    ("XX000", "tuple concurrently updated", Fault.AWAY),
    ("XX000", "cache lookup failed for function 16999", Fault.AWAY),
    ("XX000", "Tenant or user not found", Fault.ADDRESS),
    ("XX000", "(ENOTFOUND) tenant/user postgres.abc not found", Fault.ADDRESS),
    ("XX000", "(ETENANTNOTFOUND) tenant or user not found", Fault.ADDRESS),
    ("XX000", "(EBANNED) tenant is banned: unpaid", Fault.ADDRESS),
    ("XX000", "(ESSLREQUIRED) SSL connection is required", Fault.ADDRESS),
    ("XX000", "Address not in tenant allow_list: {1, 2, 3, 4}", Fault.ADDRESS),
    ("XX000", "invalid memory alloc request size 1073741824", Fault.UNKNOWN),
    ("XX001", "invalid page in block 7 of relation base/1/2", Fault.UNKNOWN),
    ("08P01", "query_wait_timeout", Fault.AWAY),
    ("08P01", "no more connections allowed (max_client_conn)", Fault.AWAY),
    ("08P01", "server login has been failing, try again later (server_login_retry)", Fault.AWAY),
    ("08P01", "pgbouncer cannot connect to server", Fault.AWAY),
    ("08P01", "no such database: shop", Fault.ADDRESS),
    ("08P01", "no such user: shop", Fault.ADDRESS),
    ("08P01", "unsupported startup parameter: extra_float_digits", Fault.ADDRESS),
    ("08P01", "SASL authentication failed", Fault.ADDRESS),
    ("08006", "authentication did not complete within 15000ms", Fault.AWAY),
    ("0A000", "cached plan must not change result type", Fault.AWAY),
    ("0A000", "cannot do that", Fault.UNKNOWN),
]

#: Declarations and annotations of the generated file: Node reads JavaScript.
_TYPES = (
    r"export type Fault =[^;]+;|: ReadonlyMap<string, Fault>"
    r"|: (?:string|number|boolean|Fault)\b(?= =|[,)]| \{)|: \{ message\?: [^}]+\}(?= =)"
)

#: What each reader makes of a fault: the worker (over either transport) and the client.
READ: dict[Fault, tuple[type[errors.RepositoryError], type[Exception] | None]] = {
    Fault.AWAY: (errors.Unavailable, calls.DatabaseAway),
    Fault.LOCKED: (errors.TimedOut, calls.DatabaseAway),
    Fault.SLOW: (errors.StatementTooSlow, calls.StatementTooSlow),
    Fault.SCHEMA: (errors.SchemaMissing, calls.NotSetUp),
    Fault.NOT_EXPOSED: (errors.SchemaMissing, calls.NotSetUp),
    Fault.NOT_GRANTED: (errors.NotGranted, calls.NotSetUp),
    Fault.KEY: (errors.NotGranted, calls.NotSetUp),
    Fault.ADDRESS: (errors.Misconfigured, calls.NotSetUp),
    Fault.REFUSED: (errors.Refused, calls.JobRefused),
    Fault.CONFLICT: (errors.Conflict, calls.JobRefused),
    Fault.DATA: (errors.DataError, calls.JobRefused),
    Fault.NOT_FOUND: (errors.NotFound, calls.JobRefused),
    Fault.UNKNOWN: (errors.Permanent, None),
}


@pytest.mark.parametrize("states", ["08006", "25006", "40001", "40003", "40P01", "42804", "53100"])
def test_what_passes_is_away(states: str) -> None:
    """The states of the platform's own troubles, one by one."""
    assert fault_of(states) is Fault.AWAY


@pytest.mark.parametrize("state", ["53200", "53300", "55006", "57P01", "57P02", "57P03", "58030"])
def test_what_is_stopping_full_or_in_use_is_away(state: str) -> None:
    """Shutdown, crash, start, no memory, no connection, an I/O error."""
    assert fault_of(state) is Fault.AWAY


def test_what_no_repetition_helps_is_not_away() -> None:
    """Of all states: passwords, privileges, values, refusals, mistakes of ours."""
    away = {state for state in STATES if fault_of(state) is Fault.AWAY}
    assert {state[:2] for state in away} == {
        "08",
        "25",
        "26",
        "40",
        "42",
        "53",
        "55",
        "57",
        "58",
        "72",
    }
    assert {state for state in away if state.startswith("42")} == {"42804", "42P05"}
    assert {state for state in away if state.startswith("55")} == {"55006"}


@pytest.mark.parametrize(("state", "message", "fault"), SENTENCES)
def test_under_one_code_the_sentence_decides(state: str, message: str, fault: Fault) -> None:
    """Supavisor says everything as XX000, PgBouncer as 08P01."""
    assert fault_of(state, message) is fault


def test_what_ends_a_connection_with_an_unknown_sentence_passes() -> None:
    """A pooler nobody has heard of; Postgres itself ends no connection with XX000."""
    assert fault_of("XX000", "(SOMETHING) new") is Fault.UNKNOWN
    assert fault_of("XX000", "(SOMETHING) new", fatal=True) is Fault.AWAY
    assert fault_of("XX000", "Tenant or user not found", fatal=True) is Fault.ADDRESS


def test_every_state_is_read_alike_by_worker_and_client() -> None:
    """Over asyncpg: every state with its own sentence, and poolers' sentences."""
    for state, message in [(s, "said") for s in STATES] + [(s, m) for s, m, _ in SENTENCES]:
        fault = fault_of(state, message)
        worker, client = READ[fault]
        assert type(over_asyncpg(_postgres(state, message))) is worker, (state, message)
        said = calls._of_postgres(_postgres(state, message), "create_jobs")
        assert type(said) is (client or asyncpg.PostgresError), (state, message)


def test_every_answer_is_read_alike_by_worker_and_client() -> None:
    """Over the API: states, PostgREST's codes, statuses with and without a body, words without codes."""
    for code, message, details in _answers():
        fault = fault_of_answer(code, message, body=bool(details))
        worker, client = READ[fault]
        error = APIError({"code": code, "message": message, "details": details, "hint": None})
        assert type(over_the_api(error)) is worker, (code, message, details)
        said = calls._meaning(fault, message, details, "create_jobs")
        assert type(said) is (client or type(None)), (code, message, details)


async def test_the_client_reads_what_its_supabase_client_raises() -> None:
    """Each answer through ``over_supabase`` itself."""
    for code, message, details in _answers():
        error = APIError({"code": code, "message": message, "details": details, "hint": None})
        expected = READ[fault_of_answer(code, message, body=bool(details))][1] or APIError
        with pytest.raises(expected) as raised:
            await calls.over_supabase(_raising(error))("create_jobs", {})
        assert type(raised.value) is expected, (code, message, details)


async def test_a_page_in_the_place_of_an_answer_is_the_database_being_away() -> None:
    """A proxy that answers 200 with HTML is met while a project restarts."""
    with pytest.raises(calls.DatabaseAway, match="PostgREST"):
        await calls.over_supabase(_raising(json.JSONDecodeError("x", "<html>", 0)))(
            "create_jobs", {}
        )


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_typescript_reads_as_python_does(tmp_path: Path) -> None:
    """The TypeScript client's table, without its types, reads everything above alike."""
    module = tmp_path / "faults.mjs"
    typed = (ROOT / "clients" / "typescript" / "src" / "database_faults.ts").read_text()
    module.write_text(re.sub(_TYPES, "", typed))
    cases: list[tuple[str, str, int, bool]] = [(s, "said", 0, True) for s in [*STATES, *REST]]
    cases += [(state, message, 500, True) for state, message, _ in SENTENCES]
    cases += [("", "", status, body) for status in STATUSES for body in (True, False)]
    cases += [(str(status), "said", 0, True) for status in STATUSES]
    cases += [("", words, 401, True) for words in ("Invalid API key", "Unauthorized")]
    cases += [("constructor", "", 0, True), ("", "no Route matched with those values", 404, True)]
    code = (
        f"import({json.dumps(module.as_uri())}).then(({{ faultOfAnswer }}) => console.log(JSON.stringify("
        f"{json.dumps(cases)}.map(([code, message, status, body]) =>"
        " faultOfAnswer(code, { message, status, body })))))"
    )
    told = json.loads(
        subprocess.check_output(["node", "--input-type=module", "--eval", code], text=True)
    )
    expected = [
        str(fault_of_answer(code, message, status=status or None, body=body))
        for code, message, status, body in cases
    ]
    assert dict(zip(map(str, cases), told, strict=True)) == dict(
        zip(map(str, cases), expected, strict=True)
    )


def test_every_fault_is_somewhere_in_the_table() -> None:
    """No word without a case, and no case without a reader."""
    assert set(CODES.values()) | {Fault.UNKNOWN} == set(Fault) == set(READ)


def _postgres(state: str, message: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError(message)
    error.sqlstate, error.detail = state, None
    return error


def _answers() -> list[tuple[str, str, str | None]]:
    answers: list[tuple[str, str, str | None]] = [(c, "said", None) for c in [*STATES, *REST]]
    answers += [(state, message, None) for state, message, _ in SENTENCES]
    answers += [(str(s), "said", page) for s in STATUSES for page in (None, "<html>")]
    answers += [("", "", None), ("", "Invalid API key", None), ("", "Unauthorized", None)]
    answers += [("", "no Route matched with those values", None), ("", "upstream error", None)]
    return answers


def _raising(error: Exception) -> Any:
    async def execute() -> None:
        raise error

    request = SimpleNamespace(execute=execute)
    return SimpleNamespace(
        schema=lambda _: SimpleNamespace(rpc=lambda _name, _body: request),
    )
