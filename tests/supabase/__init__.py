"""A small Supabase: what supabase-py and storage3 expect to talk to, in front of the real Postgres.

    with Platform(database.authenticator_dsn, folder) as platform:      # or the fixture `platform`
        client = await acreate_client(platform.url, platform.secret_key)

It is no mock: statements run in the real Postgres as the role ``authenticator``, each in a
transaction as its caller (``role``, ``request.jwt.claims``, the schema, the role's own settings), so
that grants, policies, constraints and timeouts are Postgres's. Files are bytes in a folder with rows
in ``storage.objects``. It runs in a thread with a loop of its own: any test and any process may use
it, and ``python -m tests.supabase`` runs it by hand.

    gateway.py        API keys, faults, and which half a request is for
    keys.py           the two pairs of keys, users' tokens, the JWKS
    rest.py           PostgREST: query.py (select, filters), mutations.py, calls.py (functions),
                      catalog.py and schema_cache.py, errors.py
    storage.py        Storage: objects.py (rows), uploads.py, storage_errors.py
    pool.py, wire.py  connections, and what they say when they end
    faults.py         the script of what goes wrong; strikes.py carries it out

Reproduced, each with a test here:

- *Keys.* ``sb_secret_…`` and ``sb_publishable_…`` are exchanged for the JWT of their role; the legacy
  JWTs; users' tokens in ES256 or HS256; 401 without a key, PGRST301 and PGRST303.
- *PostgREST*, as far as ``tests/contracts/rest.py`` asks it, which also runs on a real one: exposed
  schemas, ``rpc`` by POST, ``select`` with casts, comparisons, ``in``, ``is null``, ``not``, ``order``,
  ``limit``, ``offset``, ``count``, ``max_rows``; insert (duplicates ignored), update and delete with
  ``return=`` and ``columns=``; the status of every SQLSTATE.
- *Its bad days.* 57P01, then PGRST002 until Postgres is back; the empty 400 once per connection after a
  crash; PGRST001; PGRST003; PGRST000; a refused connection (``stop``), or 502 in HTML (``faults.down``).
- *Storage 1.60.* Upload (form or body), download, delete, signed URLs for many, buckets and their limits,
  policies; HTTP 400 with the true status in the body.
- *Faults.* Lost replies, lost requests, resets, half bodies, delays, silence, any status: every n-th, n
  times, for writes alone.

Not reproduced: whatever no test of the product sends: embedding, patterns, json paths, ``or``, merging
duplicates, one object, ``rpc`` by GET, HEAD, PUT, safeupdate, hints, CORS; replacing, listing, moving and
copying files, public buckets, ranges, resumable and signed uploads, image transformations; Auth (but for
its JWKS), Realtime, Functions.
PostgREST waits 1, 2, 4 … 32 s between its attempts to reach Postgres, this one 0.2 s; and it looks in
the catalog once more for what it does not know, where PostgREST waits for ``notify pgrst``.
"""
