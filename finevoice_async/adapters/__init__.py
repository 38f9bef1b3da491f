"""What speaks to the world outside: HTTP, SQLite, the clock, the slots of the plan."""
