"""What the client and all three packages stand on: it knows neither arq nor Redis nor a row.

answers.py          the answer of a chat: the id of its message, and what an event has of its text
asyncpg_errors.py   what an exception of asyncpg means
backoff.py          the pause before the next try, and the loop that retries
batching.py         the one micro-batcher
database_errors.py  the one table of SQLSTATEs, PostgREST's codes and HTTP statuses
dsn.py              connection strings
scrubbing.py        secrets are taken out of every text
tasks.py            cancelling a task until it is done
terminal_events.py  the events of a job that has ended
text.py             text that Postgres and UTF-8 take
"""
