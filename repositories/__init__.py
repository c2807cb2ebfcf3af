"""The rows and files: typed access to the tables and functions of the schema `uvian`.

database.py, images.py  the ports, and what is true with every adapter
errors.py               what they raise
postgres/, supabase/    adapters of both; local/ is an image store in a folder
outages.py              waiting for an image store that is away
batching.py             many jobs in one call
jobs.py, concepts.py …  one file for each noun
sql/                    the schema
"""
