"""What the command line's help says of each command: what it does, what it costs, examples.

A line with a backspace keeps the lines after it as they stand.
"""

from __future__ import annotations

FINEVOICE = """Sound effects from FineVoice, many at once, none paid for twice.

\b
Without a key, free of charge:
  finevoice demo
  finevoice generate "Rain on a tin roof" -o rain.wav --emulator

\b
With the key of your account; each `generate` costs one effect:
  export FINEVOICE_API_KEY=...
  finevoice generate "Rain on a tin roof" -o rain.wav
"""

GENERATE = """Make one sound effect and save it. It costs one effect of your plan.

The place for the file is checked first: if it cannot be saved there, nothing is sent. With --journal and --key the
same command again finds what was made, and pays nothing.

\b
Examples:
  finevoice generate "Rain on a tin roof" -o rain.wav
  finevoice generate "Rain on a tin roof" -o rain.wav --emulator  # free
  finevoice generate "Door creaks" -o door --journal fx.db --key door
  finevoice generate "Wind" --duration 5 -o - | ffplay -
"""

FETCH = """Save the result of a task of another run or day. It costs nothing.

If the task still runs, it is waited for, up to 15 minutes.

\b
Examples:
  finevoice fetch p1-3f6c0a52 -o rain.wav
  finevoice fetch p1-3f6c0a52 -o rain.wav --journal fx.db
"""

DEMO = """Make a dozen effects at once on an embedded emulator. It costs nothing.

No key and no network are needed; the audio is real.
"""

EMULATOR = """Serve an emulated FineVoice until Ctrl-C. It costs nothing.

Two lines are printed that point a program, or this command, to it.

\b
Examples:
  finevoice emulator
  finevoice emulator --port 8642 --api-key demo --service-time 2
  finevoice emulator --fault submit.lose_reply=0.1 --seed 1
"""

JOURNAL = """Show what a journal keeps, or settle it. Only --resend may cost something.

It may be looked at while a program has it open. In a pipe each effect is a line of fields between tabs: row, state,
"perhaps paid" or nothing, task id, key, prompt, file, error, time of the last change.

What is perhaps paid only you can settle: look at your account, then give --adopt, --discard or --resend.

\b
Examples:
  finevoice journal fx.db
  finevoice journal fx.db --state perhaps-paid
  finevoice journal fx.db --adopt 3=p1-3f6c0a52
  finevoice journal fx.db --resend 3 --accept-double-charge
  finevoice journal fx.db --prune 30d
"""

RESUME = """Pick up what an interrupted run left in a journal.

What runs or is done was paid for then, and is fetched for nothing. What was still queued is sent now, and costs
one effect each. What is perhaps paid is never sent again by this: see `finevoice journal`.

\b
Example:
  finevoice resume fx.db --out effects
"""
