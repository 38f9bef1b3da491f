"""What speaks to the world outside: HTTP, SQLite, the clock, the places of the plan."""
