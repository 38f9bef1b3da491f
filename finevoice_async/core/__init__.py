"""The pure part: no await, no clock, no randomness, no I/O. Time is an argument."""
