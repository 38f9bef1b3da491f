"""When to poll. Knows numbers only: no request, no task."""
