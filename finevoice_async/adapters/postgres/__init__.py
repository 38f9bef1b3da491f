"""A fleet's journal, slots and news in one PostgreSQL database. Needs the extra `postgres` (psycopg 3)."""
