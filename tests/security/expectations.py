"""Who may do what to every object of the schema. A new object needs its line here, or the tests fail."""

from __future__ import annotations

__all__ = [
    "AS_THE_CALLER",
    "FUNCTIONS",
    "OWN_ROWS",
    "ROLES",
    "SERVICE_WRITES",
    "SHARED_ROWS",
    "TABLES",
    "VERBS",
    "WITHIN",
]

ROLES = ("anon", "authenticated", "service_role")
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

#: Tables of which a signed-in user reads the rows of the conversations they take part in.
SHARED_ROWS = frozenset(
    {"conversations", "conversation_invitations", "conversation_members", "messages"}
)

#: Tables of which a signed-in user reads the own rows (those whose user_id is theirs), or those they
#: share, and no others'.
OWN_ROWS = SHARED_ROWS | {
    "jobs",
    "concepts",
    "concept_variations",
    "credit_accounts",
    "credit_entries",
}

#: Tables that the service also writes directly; all others only through functions.
SERVICE_WRITES = (SHARED_ROWS - {"conversation_invitations"}) | {
    "jobs",
    "concepts",
    "concept_variations",
    "job_types",
    "job_prices",
}

#: Every table. The service reads them all.
TABLES = (
    OWN_ROWS
    | SERVICE_WRITES
    | {
        "files",
        "job_leases",
        "job_runs",
        "job_state",
        "schema_migrations",
        "sweeps",
        "workers",
    }
)

#: Every function that somebody may call, and who. All others (`_…`) are the schema's own.
FUNCTIONS: dict[str, frozenset[str]] = {
    "add_members": frozenset({"service_role"}),
    "answer_invitation": frozenset({"authenticated", "service_role"}),
    "calculate_cost": frozenset({"authenticated", "service_role"}),
    "cancel_job": frozenset({"authenticated", "service_role"}),
    "choose_unnamed_files": frozenset({"service_role"}),
    "claim_jobs": frozenset({"service_role"}),
    "claim_next_jobs": frozenset({"service_role"}),
    "configure_types": frozenset({"service_role"}),
    "create_conversation": frozenset({"authenticated", "service_role"}),
    "create_jobs": frozenset({"service_role"}),
    "delete_conversation": frozenset({"authenticated", "service_role"}),
    "terminal_events_of": frozenset({"service_role"}),
    "forget_files": frozenset({"service_role"}),
    "grant_credits": frozenset({"service_role"}),
    "invite_members": frozenset({"authenticated", "service_role"}),
    "list_conversations": frozenset({"service_role"}),
    "list_invitations": frozenset({"service_role"}),
    "list_types": frozenset({"service_role"}),
    "mark_jobs": frozenset({"service_role"}),
    "my_conversations": frozenset({"authenticated"}),  # policies ask it as the user
    "platform_state": frozenset({"service_role"}),
    "post_message": frozenset({"authenticated", "service_role"}),
    "register_worker": frozenset({"service_role"}),
    "remove_member": frozenset({"authenticated", "service_role"}),
    "renew_leases": frozenset({"service_role"}),
    "retire_worker": frozenset({"service_role"}),
    "retry_job": frozenset({"authenticated", "service_role"}),
    "save_checkpoints": frozenset({"service_role"}),
    "served_files": frozenset({"service_role"}),
    "settle_jobs": frozenset({"service_role"}),
    "stop_answer": frozenset({"authenticated", "service_role"}),
    "store_concept": frozenset({"service_role"}),
    "submit_job": frozenset({"authenticated"}),
    "sweep_jobs": frozenset({"service_role"}),
    "type_schemas": frozenset({"service_role"}),
    "update_conversation": frozenset({"authenticated", "service_role"}),
}

#: What tells how the platform looks to the caller, and what it is made of: these run as who asks.
AS_THE_CALLER: dict[str, frozenset[str]] = dict.fromkeys(
    ("platform_state", "_platform_step", "_unpublished"), frozenset({"service_role"})
)

#: What the schema's own functions are called within: they need no grant, because those run as their owner.
WITHIN = "_"
