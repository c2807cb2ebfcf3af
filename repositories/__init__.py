"""The rows: typed access to the tables and functions of the schema `uvian`."""
