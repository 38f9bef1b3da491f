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

The URL of a fleet's database in the place of the file takes the key: it says whose effects are meant.

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

PLAN = """Show what `batch` would do with a list, and pay for. It costs nothing.

Nothing is sent, and no key is needed. All rows of the list are checked, and all faults are shown together.

\b
Examples:
  finevoice plan sounds.csv --out sfx
  finevoice plan sounds.csv --out sfx --price-per-effect 0.05
"""

BATCH = """Make all sounds of a list that are not there yet.

Each new sound costs one effect; on a terminal you are asked before the first. Run it again after anything: it does what
is left. A journal in the folder and a lock file beside the list see to it that nothing is paid for twice; the lock
belongs into version control. Nothing in the folder is ever replaced.

\b
Examples:
  finevoice batch sounds.csv --out sfx --emulator  # free
  finevoice batch sounds.csv --out sfx --max-effects 100
  finevoice batch sounds.csv --out sfx --frozen    # CI: never pays
  finevoice report sfx                             # one page to hear all

--max-effects and --budget hold for a run, and go on with it where it was cut off.

With --journal URL several machines may run the same list: they share the slots of your plan, each sound is paid for by
one of them, and every one ends with all files and the same lock. See `finevoice fleet`.
"""

REPORT = """Make a page to hear and compare a batch's sounds. It costs nothing.

What needs a look comes first. The page needs no network and no server: open it in a browser, also while a batch runs.

\b
Example:
  finevoice report sfx
"""

FLEET = """Make or show the database that sessions on several machines share.

It costs nothing, and needs no key. Sessions with one key and a database as their journal are a fleet: they share the
slots of your plan, and an effect with a key is made once. `init` makes the tables, those of the queue, too, if
procrastinate is installed; to run it again is harmless.

In a pipe each key is a line of fields between tabs: the key's hash, sessions, running, waiting, sending, unknown,
done, failed, the longest wait in seconds, slots taken, slots of the plan.

\b
Examples:
  finevoice fleet init postgresql://me@db.example/sounds
  finevoice fleet init --sql | psql sounds
  finevoice fleet postgresql://me@db.example/sounds --watch

A password is best kept in PGPASSWORD or ~/.pgpass: other users of this machine may see what you type.
"""

WORKER = """Make the effects that programs have put into the queue of a fleet.

Each new effect costs one of your plan; a key is one effect, however often it was queued or delivered. Run as many
workers as you like, on any machine: the plan is shared. One may be killed at any time, another finishes its jobs.
Ctrl-C or SIGTERM ends it: what runs is finished and saved, the rest stays in the queue; again, it ends at once.

A job is tried again if certainly nothing was sent, or what was made could not be fetched. Other failures stay in the
queue as failed. What is perhaps paid is never sent again by this.

\b
Examples:
  finevoice worker postgresql://me@db.example/sounds --out sfx
  finevoice worker postgresql://me@db.example/sounds --max-concurrency 10
"""
