"""The only place with SQL: one class per table, made with the session of a transaction."""
