"""What must hold of all rows at every moment, whoever did what at once."""

from __future__ import annotations

__all__ = ["INVARIANTS", "broken"]

from tests.lifecycle.world import World

#: Each selects what breaks the sentence before it.
INVARIANTS = {
    "no account is below zero": """
        select user_id from uvian.credit_accounts where balance < 0 or reserved < 0""",
    "what was granted is the balance, what is reserved, and what was charged": """
        select a.user_id, a.balance, a.reserved, sum(e.amount) filter (where e.kind = 'grant') as granted,
               sum(e.amount) filter (where e.kind = 'charge') as charged
        from uvian.credit_accounts a left join uvian.credit_entries e on e.user_id = a.user_id
        group by a.user_id
        having coalesce(sum(e.amount) filter (where e.kind = 'grant'), 0)
               <> a.balance + a.reserved + coalesce(sum(e.amount) filter (where e.kind = 'charge'), 0)""",
    "what an account has reserved is what its jobs hold": """
        select a.user_id, a.reserved, sum(s.reserved) as held
        from uvian.credit_accounts a left join uvian.jobs j on j.user_id = a.user_id
        left join uvian.job_state s on s.job_id = j.id
        group by a.user_id having a.reserved <> coalesce(sum(s.reserved), 0)""",
    "a reservation is made once, charged at most once, and never for more": """
        select job_id, reservation from uvian.credit_entries where kind <> 'grant'
        group by job_id, reservation
        having count(*) filter (where kind = 'reserve') <> 1
            or count(*) filter (where kind = 'charge') > 1
            or count(*) filter (where kind = 'release') > 1
            or sum(case kind when 'reserve' then amount else -amount end) < 0""",
    "a reservation is open as long as its job is": """
        select e.job_id, e.reservation, j.status,
               sum(case e.kind when 'reserve' then e.amount else -e.amount end) as open
        from uvian.credit_entries e left join uvian.jobs j on j.id = e.job_id
        left join uvian.job_state s on s.job_id = e.job_id
        where e.kind <> 'grant'
        group by e.job_id, e.reservation, j.status, s.reservation, s.reserved
        having sum(case e.kind when 'reserve' then e.amount else -e.amount end)
               <> case when j.status in ('queued', 'processing') and e.reservation = s.reservation
                       then s.reserved else 0 end""",
    "an open job holds what it costs, an ended one nothing": """
        select j.id, j.status, j.cost, s.reserved from uvian.jobs j join uvian.job_state s on s.job_id = j.id
        where s.reserved <> case when j.status in ('queued', 'processing') then j.cost else 0 end""",
    "what runs has a lease of its run, and nothing else has one": """
        select j.id, j.status, j.run, l.run from uvian.jobs j full join uvian.job_leases l on l.job_id = j.id
        where (j.status is not distinct from 'processing')
              <> (l.run is not distinct from j.run and l.run is not null)""",
    "what is queued with a place, or waits for its time, will be offered": """
        select j.id from uvian.jobs j join uvian.job_state s on s.job_id = j.id
        where j.status = 'queued' and s.redispatch_at is null and (j.admitted or j.run_at > now())""",
    "nobody has more places than the limit": """
        select j.user_id, j.type, count(*) from uvian.jobs j join uvian.job_types t on t.type = j.type
        where j.admitted and j.status in ('queued', 'processing')
        group by j.user_id, j.type, t.max_running_per_user having count(*) > t.max_running_per_user""",
    "who has a place has the turn": """
        select id from uvian.jobs where status in ('queued', 'processing') and admitted and not its_turn""",
    "of a conversation one chat has the turn": """
        select conversation_id, count(*) from uvian.jobs
        where status in ('queued', 'processing') and its_turn and conversation_id is not null
        group by conversation_id having count(*) > 1""",
    "where a chat is due, one has the turn, or the first will be looked at": """
        select distinct on (j.conversation_id) j.id, s.redispatch_at
        from uvian.jobs j join uvian.job_state s on s.job_id = j.id
        where j.status = 'queued' and not j.its_turn and j.run_at <= now() and s.redispatch_at is null
          and j.turn = (select min(o.turn) from uvian.jobs o
                        where o.conversation_id = j.conversation_id and o.status = 'queued'
                          and not o.its_turn and o.run_at <= now())
          and not exists (select from uvian.jobs o
                          where o.conversation_id = j.conversation_id and o.its_turn
                            and o.status in ('queued', 'processing'))""",
    "who is in line has a turn of its own": """
        select conversation_id, turn from uvian.jobs
        where status in ('queued', 'processing') and conversation_id is not null
        group by conversation_id, turn having turn is null or count(*) > 1""",
    "an ended job has given its turn away": """
        select id from uvian.jobs
        where conversation_id is not null and its_turn and status not in ('queued', 'processing')""",
    "positions are those that the conversation has given": """
        select m.id, m.position, c.last_position
        from uvian.messages m join uvian.conversations c on c.id = m.conversation_id
        where m.position not between 1 and c.last_position""",
    "an answer is of its job, and stored once": """
        select m.job_id, count(*) from uvian.messages m left join uvian.jobs j on j.id = m.job_id
        where m.role = 'assistant' and m.job_id is not null
        group by m.job_id having count(*) > 1 or bool_or(m.id <> uvian._answer_id(m.job_id))""",
    "every conversation has its owner among its members": """
        select c.id from uvian.conversations c left join uvian.conversation_members m
          on m.conversation_id = c.id and m.user_id = c.user_id and m.role = 'owner'
        where m.user_id is null""",
    "every job has its state": """
        select j.id from uvian.jobs j left join uvian.job_state s on s.job_id = j.id
        where s.job_id is null""",
}


async def broken(world: World) -> dict[str, list[dict[str, object]]]:
    """The sentences that do not hold, with the rows that break them."""
    async with world.hand.transaction(isolation="repeatable_read", readonly=True):
        found = {
            sentence: [dict(row) for row in await world.hand.fetch(statement)]
            for sentence, statement in INVARIANTS.items()
        }
    return {sentence: rows for sentence, rows in found.items() if rows}
