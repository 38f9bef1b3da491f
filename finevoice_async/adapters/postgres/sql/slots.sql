-- All functions are in PL/pgSQL, which keeps its plans: one in SQL is planned anew by every call.
--
-- Slots: who takes them, and who gets the next one. A slot is the column `place` of a row, so it belongs to the task at
-- the service, outlives a dead process and changes in one commit with the row's state.
--
-- Every function that gives or takes slots locks the account first, in a statement of its own: under READ COMMITTED the
-- next statement then sees what the one before it has committed. Nobody locks rows and then the account.

CREATE OR REPLACE FUNCTION finevoice.lock(a text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM finevoice.accounts WHERE account = a FOR UPDATE;
END $$;

CREATE OR REPLACE FUNCTION finevoice.tell(a text, whom bigint, what text, row_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('finevoice_' || a, coalesce(whom, 0) || ' ' || what || ' ' || row_id);
END $$;

-- The sessions whose connection is gone: nobody holds their lock. 1180070776 is 'FVsx'.
CREATE OR REPLACE FUNCTION finevoice.lost(a text) RETURNS SETOF bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT s.id FROM finevoice.sessions s WHERE s.account = a AND NOT EXISTS (
        SELECT FROM pg_locks l
         WHERE l.locktype = 'advisory' AND l.classid = 1180070776 AND l.objid::bigint = s.id AND l.granted
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()));
END $$;

CREATE OR REPLACE FUNCTION finevoice.lives(it bigint) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM finevoice.sessions s
                    WHERE s.id = it AND s.beat > clock_timestamp() - s.lease
                      AND s.id NOT IN (SELECT finevoice.lost(s.account)));
END $$;

-- The least plan of all sessions, so that a change from 5 to 10 may roll. After a 429 fewer, then slowly more.
CREATE OR REPLACE FUNCTION finevoice.plan(a text) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
    whole int := (SELECT min(s.plan) FROM finevoice.sessions s WHERE s.account = a);
    left_over int;
    since timestamptz;
BEGIN
    SELECT c.reduced, c.reduced_until INTO left_over, since FROM finevoice.accounts c WHERE c.account = a;
    IF left_over IS NULL THEN RETURN whole; END IF;
    IF clock_timestamp() >= since THEN
        left_over := left_over
            + (1 + floor(extract(epoch FROM clock_timestamp() - since) / 5))::int * greatest(1, whole / 10);
    END IF;
    RETURN least(whole, left_over);
END $$;

CREATE OR REPLACE FUNCTION finevoice.taken(a text) RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT count(*) FROM finevoice.effects WHERE account = a AND place > clock_timestamp())
         + (SELECT count(*) FROM finevoice.strangers WHERE account = a);
END $$;

CREATE OR REPLACE FUNCTION finevoice.somebody_waits(a text) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM finevoice.effects WHERE account = a
                    AND state IN ('queued', 'unknown', 'lost') AND session IS NOT NULL AND place IS NULL);
END $$;

-- The turn of one more that waits in a line: after the last of that line, and after whoever got a slot last, so that
-- lines take turns, however long they are. (Start-time fair queueing.)
CREATE OR REPLACE FUNCTION finevoice.next_turn(a text, in_line text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN 1 + greatest(
        (SELECT c.turn FROM finevoice.accounts c WHERE c.account = a),
        (SELECT max(e.turn) FROM finevoice.effects e
          WHERE e.account = a AND e.line = in_line
            AND e.state IN ('queued', 'unknown', 'lost') AND e.session IS NOT NULL AND e.place IS NULL));
END $$;

-- Give free slots to those who wait: to the line that has the fewest, in turn where several have. The account is
-- locked. Of `silent` nobody is told: its caller asked for just that. Lines that wait stand near the front by their
-- turns, so that the first 100 are enough to look at.
CREATE OR REPLACE FUNCTION finevoice.grant_places(a text, silent bigint DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    free int;
    g record;
BEGIN
    IF NOT finevoice.somebody_waits(a) THEN RETURN; END IF;
    free := finevoice.plan(a) - finevoice.taken(a);
    IF free IS NULL OR free <= 0 THEN RETURN; END IF;
    FOR g IN
        WITH held AS (
            SELECT line, count(*) AS places FROM finevoice.effects
             WHERE account = a AND place > clock_timestamp() GROUP BY line
        ), waiting AS (
            SELECT id, session, line, turn FROM finevoice.effects
             WHERE account = a AND state IN ('queued', 'unknown', 'lost') AND session IS NOT NULL AND place IS NULL
               AND session IN (SELECT s.id FROM finevoice.sessions s  -- who is silent for longer sends nothing
                                WHERE s.account = a AND s.beat > clock_timestamp() - s.lease / 2)
             ORDER BY turn, id LIMIT 100
        )
        SELECT w.id, w.session, w.turn,
               row_number() OVER (PARTITION BY w.line ORDER BY w.turn, w.id) + coalesce(h.places, 0) AS share
          FROM waiting w LEFT JOIN held h ON h.line = w.line
         ORDER BY share, w.turn, w.id LIMIT free
    LOOP
        UPDATE finevoice.effects SET place = 'infinity' WHERE id = g.id;
        UPDATE finevoice.accounts SET turn = greatest(turn, g.turn) WHERE account = a;
        IF g.id IS DISTINCT FROM silent THEN PERFORM finevoice.tell(a, g.session, 'place', g.id); END IF;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION finevoice.slow_down(a text, seconds float) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM finevoice.lock(a);
    UPDATE finevoice.accounts
       SET reduced = greatest(1, least(finevoice.plan(a), finevoice.taken(a)) - 1),
           reduced_until = greatest(reduced_until, clock_timestamp() + make_interval(secs => seconds))
     WHERE account = a;
END $$;

-- Its task was given up by who asked for it.
CREATE OR REPLACE FUNCTION finevoice.free_slot(a text, me bigint, row_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM finevoice.lock(a);
    UPDATE finevoice.effects SET place = NULL WHERE id = row_id AND session = me AND state = 'submitted';
    PERFORM finevoice.grant_places(a);
END $$;

CREATE OR REPLACE FUNCTION finevoice.occupy(a text, me bigint, task text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM finevoice.lock(a);
    IF NOT EXISTS (SELECT FROM finevoice.effects WHERE account = a AND task_id = task AND place IS NOT NULL) THEN
        INSERT INTO finevoice.strangers (account, task_id, session) VALUES (a, task, me)
            ON CONFLICT (account, task_id) DO UPDATE SET session = me;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION finevoice.vacate(a text, me bigint, task text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM finevoice.lock(a);
    DELETE FROM finevoice.strangers WHERE account = a AND task_id = task;
    PERFORM finevoice.grant_places(a);
END $$;
