-- Sessions: who is in the fleet, and what becomes of the rows of who is not any more.

CREATE OR REPLACE FUNCTION finevoice.check_member(me bigint) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM finevoice.sessions WHERE id = me) THEN
        RAISE 'session % is not in the fleet', me USING ERRCODE = 'FV001';
    END IF;
END $$;

-- `former`: who it was before its connection was lost; what is still its own goes with it.
CREATE OR REPLACE FUNCTION finevoice.join_fleet(a text, who text, slots int, its_lease interval, former bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    me bigint := nextval('finevoice.sessions_id_seq');
BEGIN
    PERFORM pg_advisory_lock(1180070776, me::int);  -- before it can be seen; it goes with the connection
    INSERT INTO finevoice.accounts (account) VALUES (a) ON CONFLICT DO NOTHING;
    PERFORM finevoice.lock(a);
    INSERT INTO finevoice.sessions (id, account, who, plan, lease) VALUES (me, a, who, slots, its_lease);
    UPDATE finevoice.effects SET session = me, line = CASE WHEN owner IS NULL THEN 'session ' || me ELSE line END
     WHERE account = a AND session = former AND state NOT IN ('saved', 'refused', 'failed', 'done');
    UPDATE finevoice.strangers SET session = me WHERE session = former;
    DELETE FROM finevoice.sessions WHERE id = former;
    PERFORM finevoice.grant_places(a);
    RETURN me;
END $$;

-- Every beat, by everybody: I am here; who is not? A lost connection, or half a lease without a beat, is enough to let
-- others poll, and to let others send what was not sent: both are safe. To call a POST unknown takes the whole lease:
-- its sender may be well, and only the connection gone. Returned is what was adopted.
CREATE OR REPLACE FUNCTION finevoice.sweep(a text, me bigint, hold interval, adopts bool)
RETURNS SETOF finevoice.effects LANGUAGE plpgsql AS $$
DECLARE
    quiet bigint[];
    late bigint[];
    gone bigint[];
    o record;
BEGIN
    PERFORM finevoice.check_member(me);
    SELECT array_agg(id), array_agg(id) FILTER (WHERE beat < clock_timestamp() - lease) INTO quiet, late
      FROM finevoice.sessions WHERE account = a AND beat < clock_timestamp() - lease / 2 AND id <> me;
    SELECT array_agg(id) INTO gone FROM finevoice.lost(a) AS id;
    IF quiet IS NULL AND gone IS NULL  -- mostly nothing to do: no lock
       AND NOT EXISTS (SELECT FROM finevoice.effects WHERE account = a AND state = 'submitted' AND session IS NULL)
       AND NOT (EXISTS (SELECT FROM finevoice.effects WHERE account = a
                           AND state IN ('queued', 'unknown', 'lost') AND session IS NOT NULL AND place IS NULL)
                AND finevoice.taken(a) < finevoice.plan(a)) THEN  -- as when the hold of what is unknown is over
        UPDATE finevoice.sessions SET beat = clock_timestamp() WHERE id = me;
        IF NOT FOUND THEN PERFORM finevoice.check_member(me); END IF;  -- taken for dead meanwhile: nobody may be sure
        RETURN;
    END IF;
    PERFORM finevoice.lock(a);
    UPDATE finevoice.sessions SET beat = clock_timestamp() WHERE id = me;  -- after the lock: see there
    IF NOT FOUND THEN PERFORM finevoice.check_member(me); END IF;
    -- Who has given a sign of life since stays, with all its rows and slots.
    DELETE FROM finevoice.sessions WHERE id = ANY(late) AND beat < clock_timestamp() - lease;
    SELECT array_agg(id) INTO quiet FROM finevoice.sessions
     WHERE id = ANY(quiet) AND beat < clock_timestamp() - lease / 2;
    DELETE FROM finevoice.strangers t WHERE account = a
       AND (session = ANY(gone) OR NOT EXISTS (SELECT FROM finevoice.sessions s WHERE s.id = t.session));
    -- Half a lease after its beat a session sends nothing by itself: a slot is of no use to it. It waits on, though.
    UPDATE finevoice.effects SET place = NULL
     WHERE account = a AND session = ANY(quiet) AND state IN ('queued', 'unknown', 'lost') AND place IS NOT NULL;
    FOR o IN
        UPDATE finevoice.effects SET
            session = NULL,
            place = CASE state WHEN 'submitted' THEN place WHEN 'sending' THEN clock_timestamp() + hold END,
            error = CASE state WHEN 'sending' THEN 'Its process was lost before the answer to its submission came'
                               ELSE error END,
            state = CASE state WHEN 'sending' THEN 'unknown' ELSE state END
         WHERE account = a AND session IS NOT NULL AND state NOT IN ('saved', 'refused', 'failed', 'done')
           AND (session = ANY(gone) AND state <> 'sending'
                OR NOT EXISTS (SELECT FROM finevoice.sessions s WHERE s.id = session))
        RETURNING id, state
    LOOP
        PERFORM finevoice.tell(a, NULL, o.state, o.id);
    END LOOP;
    IF adopts THEN
        RETURN QUERY UPDATE finevoice.effects SET session = me
                      WHERE account = a AND state = 'submitted' AND (session IS NULL OR session = ANY(quiet))
                      RETURNING *;
    END IF;
    PERFORM finevoice.grant_places(a);
END $$;

-- What runs keeps its slot and waits for somebody to adopt it; what was not sent waits for a call.
CREATE OR REPLACE FUNCTION finevoice.leave_fleet(a text, me bigint, hold interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    o record;
BEGIN
    PERFORM finevoice.lock(a);
    FOR o IN
        UPDATE finevoice.effects SET
            session = NULL,
            place = CASE state WHEN 'submitted' THEN place WHEN 'sending' THEN clock_timestamp() + hold END,
            error = CASE state WHEN 'sending' THEN 'Its session left before the answer to its submission came'
                               ELSE error END,
            state = CASE state WHEN 'sending' THEN 'unknown' ELSE state END
         WHERE account = a AND session = me AND state NOT IN ('saved', 'refused', 'failed', 'done')
        RETURNING id, state
    LOOP
        PERFORM finevoice.tell(a, NULL, o.state, o.id);
    END LOOP;
    DELETE FROM finevoice.strangers WHERE session = me;
    DELETE FROM finevoice.sessions WHERE id = me;
    PERFORM finevoice.grant_places(a);
END $$;

-- Its poller died: others are to ask for what runs.
CREATE OR REPLACE FUNCTION finevoice.give_away(a text, me bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM finevoice.lock(a);
    UPDATE finevoice.effects SET session = NULL
     WHERE account = a AND session = me AND state = 'submitted';
END $$;

CREATE OR REPLACE FUNCTION finevoice.rescuer(a text, me bigint) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN me = (SELECT min(id) FROM finevoice.sessions
                  WHERE account = a AND id NOT IN (SELECT finevoice.lost(a)));
END $$;

CREATE OR REPLACE FUNCTION finevoice.fleet(a text, OUT sessions bigint, OUT plan int, OUT taken int, OUT running bigint,
    OUT waiting bigint, OUT sending bigint, OUT unknown bigint, OUT done bigint, OUT failed bigint,
    OUT longest_wait float)
LANGUAGE sql STABLE AS $$
    SELECT (SELECT count(*) FROM finevoice.sessions
             WHERE account = a AND beat > clock_timestamp() - lease AND id NOT IN (SELECT finevoice.lost(a))),
           finevoice.plan(a), finevoice.taken(a),
           count(*) FILTER (WHERE state = 'submitted'),
           count(*) FILTER (WHERE state = 'queued' AND session IS NOT NULL),
           count(*) FILTER (WHERE state = 'sending'),
           count(*) FILTER (WHERE state IN ('unknown', 'lost')),
           count(*) FILTER (WHERE state IN ('done', 'saved')),
           count(*) FILTER (WHERE state = 'failed'),
           coalesce(extract(epoch FROM clock_timestamp()
               - min(updated_at) FILTER (WHERE state = 'queued' AND session IS NOT NULL)), 0)
      FROM finevoice.effects WHERE account = a
$$;
