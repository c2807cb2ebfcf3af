"""The rows: what the schema, its functions and the stores promise."""
