-- Effects: the moves of their rows, one commit each. Which states a move may start from is an argument: core.ledger says.
--
-- Intents (begin, take, send) need the session to be in the fleet, and the row to be its own. Facts are true whoever
-- tells them and however late, if they name the claim that they are about. `again` says that an answer was lost, so
-- that the move may have been made before.

CREATE OR REPLACE FUNCTION finevoice.begin_effect(
    a text, me bigint, c bigint, k text, req text, whose text, starts text[], keeps text[], at_once bool,
    again bool, most int, per interval,
    OUT mine bool, OUT elsewhere bool, OUT r finevoice.effects) LANGUAGE plpgsql AS $$
DECLARE
    own_line text := coalesce('owner ' || whose, 'session ' || me);
    at timestamptz;
    has_slot bool;
BEGIN
    PERFORM finevoice.lock(a);
    PERFORM finevoice.check_member(me);
    at := clock_timestamp();
    mine := true;
    elsewhere := false;
    at_once := at_once AND finevoice.free_in(a, most, per) IS NULL;  -- else SEND says so
    -- Asked again: only whoever drew the claim may send it, and has not, as the answer did not come.
    IF again THEN
        UPDATE finevoice.effects SET session = me, line = own_line,
               state = CASE state WHEN 'unknown' THEN 'queued' ELSE state END,
               place = CASE state WHEN 'unknown' THEN NULL ELSE place END
         WHERE claim = c AND state IN ('queued', 'sending', 'unknown') RETURNING * INTO r;
    END IF;
    IF r.id IS NULL THEN  -- a slot is free, and nobody waits: it is written once
        has_slot := at_once AND NOT finevoice.somebody_waits(a) AND finevoice.plan(a) > finevoice.taken(a);
        INSERT INTO finevoice.effects
            (account, key, claim, state, place, request, session, owner, line, turn, created_at, updated_at)
            VALUES (a, k, c, CASE WHEN has_slot THEN 'sending' ELSE 'queued' END,
                    CASE WHEN has_slot THEN 'infinity'::timestamptz END,
                    req, me, whose, own_line, finevoice.next_turn(a, own_line), at, at)
            ON CONFLICT (account, key) DO NOTHING RETURNING * INTO r;
        IF r.state = 'sending' THEN
            INSERT INTO finevoice.posts (claim, account) VALUES (c, a);
            RETURN;
        END IF;
    END IF;
    IF r.id IS NULL THEN  -- the key is known
        SELECT * INTO r FROM finevoice.effects WHERE account = a AND key = k;
        mine := r.state = ANY(starts);
        IF NOT mine THEN
            IF r.state NOT IN ('queued', 'sending', 'submitted') OR r.session = me THEN RETURN; END IF;
            elsewhere := r.state = 'sending' OR r.session IS NOT NULL AND finevoice.lives(r.session);
            IF elsewhere OR r.request <> req THEN RETURN; END IF;
            IF r.state = 'submitted' THEN  -- nobody asks how it does
                UPDATE finevoice.effects SET session = me WHERE id = r.id RETURNING * INTO r;
                RETURN;
            END IF;
        END IF;
        UPDATE finevoice.effects e SET
            state = 'queued', session = me, claim = c, place = NULL, request = req,
            owner = whose, line = own_line, turn = finevoice.next_turn(a, own_line)
         WHERE id = r.id;
        IF mine THEN
            UPDATE finevoice.effects e SET
                earlier = CASE WHEN r.state = ANY(keeps) THEN finevoice.earlier(r) END,
                task_id = NULL, urls = '[]', path = NULL, sha256 = NULL, error = NULL, submitted_at = NULL,
                past_task_ids = e.past_task_ids || coalesce(e.task_id || chr(10), ''), updated_at = at
             WHERE id = r.id;
        END IF;
    END IF;
    PERFORM finevoice.grant_places(a, CASE WHEN at_once THEN r.id END);
    IF at_once THEN  -- a slot was free: one commit
        UPDATE finevoice.effects SET state = 'sending' WHERE id = r.id AND state = 'queued' AND place IS NOT NULL;
        IF FOUND THEN
            INSERT INTO finevoice.posts (claim, account) VALUES (c, a)
                ON CONFLICT (claim) DO UPDATE SET at = clock_timestamp();
        END IF;
    END IF;
    SELECT * INTO r FROM finevoice.effects WHERE id = r.id;
END $$;

-- Act from now on for a row that is to be sent (again), unless somebody who lives does. `seen`: the claim as it was
-- when its caller decided; NULL: whatever it is. What may be paid for keeps its claim until it is sent again: what is
-- heard of the POST before is as true while it waits for that, and may spare it. Returned is the claim; NULL: not taken.
CREATE OR REPLACE FUNCTION finevoice.take_effect(
    a text, me bigint, row_id bigint, seen bigint, c bigint, whose text, starts text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    own_line text;
    its bigint;
BEGIN
    PERFORM finevoice.lock(a);
    PERFORM finevoice.check_member(me);
    whose := coalesce(whose, (SELECT owner FROM finevoice.effects WHERE id = row_id));  -- as it was wished for
    own_line := coalesce('owner ' || whose, 'session ' || me);
    UPDATE finevoice.effects SET session = me, claim = CASE state WHEN 'queued' THEN c ELSE claim END, place = NULL,
           owner = whose, line = own_line, turn = finevoice.next_turn(a, own_line)
     WHERE id = row_id AND account = a AND state = ANY(starts) AND claim = coalesce(seen, claim)
       AND (session IS NULL OR session = me OR NOT finevoice.lives(session))
    RETURNING claim INTO its;
    IF NOT FOUND THEN RETURN (SELECT claim FROM finevoice.effects WHERE claim = c AND session = me); END IF;
    PERFORM finevoice.grant_places(a);
    RETURN its;
END $$;

-- A row, and whether another session that lives acts for it. One that runs, and that nobody asks for, is taken.
CREATE OR REPLACE FUNCTION finevoice.whose(
    a text, me bigint, row_id bigint, OUT elsewhere bool, OUT taken bool, OUT r finevoice.effects) LANGUAGE plpgsql AS $$
BEGIN
    SELECT * INTO r FROM finevoice.effects WHERE id = row_id AND account = a;
    elsewhere := r.session IS DISTINCT FROM me AND (r.state = 'sending'
        OR r.session IS NOT NULL AND r.state NOT IN ('saved', 'refused', 'failed', 'done') AND finevoice.lives(r.session));
    IF r.state = 'submitted' AND r.session IS DISTINCT FROM me AND NOT elsewhere THEN
        UPDATE finevoice.effects SET session = me
         WHERE id = row_id AND state = 'submitted' AND session IS NOT DISTINCT FROM r.session
           AND EXISTS (SELECT FROM finevoice.sessions WHERE id = me)
        RETURNING * INTO r;
        taken := r.id IS NOT NULL;
        IF NOT taken THEN  -- somebody was quicker
            SELECT * INTO r FROM finevoice.effects WHERE id = row_id AND account = a;
            elsewhere := true;
        END IF;
    END IF;
END $$;

-- Act no longer for a row that was not sent. What may be paid for keeps the slot that it held before, if any.
CREATE OR REPLACE FUNCTION finevoice.let_go(a text, me bigint, row_id bigint) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    now_in text;
BEGIN
    PERFORM finevoice.lock(a);
    UPDATE finevoice.effects SET session = NULL, place = NULL
     WHERE id = row_id AND session = me AND state IN ('queued', 'unknown', 'lost') RETURNING state INTO now_in;
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM finevoice.tell(a, NULL, now_in, row_id);
    PERFORM finevoice.grant_places(a);
    RETURN true;
END $$;

-- Its POST is about to leave. `c` is the claim of that POST: another than before where an earlier one may be paid for.
CREATE OR REPLACE FUNCTION finevoice.send_effect(
    a text, me bigint, row_id bigint, seen bigint, c bigint, starts text[], keeps text[], again bool,
    most int, per interval, OUT sent bool, OUT free_in float) LANGUAGE plpgsql AS $$
BEGIN
    IF per IS NOT NULL THEN PERFORM finevoice.lock(a); END IF;  -- who counts must see what others have just sent
    PERFORM finevoice.check_member(me);
    sent := again AND EXISTS (SELECT FROM finevoice.effects
                               WHERE id = row_id AND claim = c AND state = 'sending' AND session = me);
    IF sent THEN RETURN; END IF;
    free_in := finevoice.free_in(a, most, per);
    IF free_in IS NOT NULL THEN RETURN; END IF;
    UPDATE finevoice.effects e SET
        earlier = CASE WHEN e.state = ANY(keeps) THEN finevoice.earlier(e) ELSE e.earlier END,
        state = 'sending', session = me, claim = c, place = 'infinity',
        task_id = NULL, urls = '[]', path = NULL, sha256 = NULL, error = NULL, submitted_at = NULL,
        past_task_ids = e.past_task_ids || coalesce(e.task_id || chr(10), ''), updated_at = clock_timestamp()
     WHERE id = row_id AND account = a AND state = ANY(starts) AND claim = seen AND place > clock_timestamp()
       AND (session = me OR session IS NULL AND state <> 'queued');
    sent := FOUND;
    IF NOT sent THEN RETURN; END IF;
    INSERT INTO finevoice.posts (claim, account) VALUES (c, a)
        ON CONFLICT (claim) DO UPDATE SET at = clock_timestamp();
END $$;

-- What a row keeps of itself while it is tried anew.
CREATE OR REPLACE FUNCTION finevoice.earlier(r finevoice.effects) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('state', r.state, 'request', r.request, 'task_id', r.task_id, 'error', r.error,
                              'submitted_at', r.submitted_at);
END $$;

-- The new try came to nothing: the row is what it was. The account is locked. Where another row has its task id by now,
-- it is without, and unknown in place of lost.
CREATE OR REPLACE FUNCTION finevoice.fall_back(was finevoice.effects, gives_back bool) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    goal text := was.earlier->>'state';
    tid text := was.earlier->>'task_id';
    past text := was.past_task_ids;
BEGIN
    IF EXISTS (SELECT FROM finevoice.effects WHERE account = was.account AND task_id = tid) THEN
        tid := NULL;
        IF goal = 'lost' THEN goal := 'unknown'; END IF;
    ELSIF right(past, length(tid) + 1) = tid || chr(10) THEN
        past := left(past, -(length(tid) + 1));
    END IF;
    UPDATE finevoice.effects SET
        state = goal, request = was.earlier->>'request', task_id = tid, error = was.earlier->>'error',
        submitted_at = (was.earlier->>'submitted_at')::timestamptz, past_task_ids = past, earlier = NULL,
        session = NULL, place = NULL, updated_at = clock_timestamp()
     WHERE id = was.id;
    IF gives_back AND was.state IN ('sending', 'unknown') THEN
        DELETE FROM finevoice.posts WHERE claim = was.claim;
    END IF;
    PERFORM finevoice.tell(was.account, NULL, goal, was.id);
    PERFORM finevoice.grant_places(was.account);
    RETURN true;
END $$;

-- Every other move. NULL leaves a field as it is; `c` NULL: whatever the claim. Returned is NULL if there is no row.
CREATE OR REPLACE FUNCTION finevoice.move_effect(
    a text, me bigint, row_id bigint, c bigint, starts text[], falls text[], goal text,
    of_task bool, gives_back bool, afresh bool, again bool,
    tid text, links text, where_to text, sum text, why text, hold interval) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    was finevoice.effects;
    at timestamptz := clock_timestamp();
BEGIN
    IF goal <> 'saved' THEN PERFORM finevoice.lock(a); END IF;
    SELECT * INTO was FROM finevoice.effects WHERE id = row_id AND account = a FOR UPDATE;
    IF NOT FOUND THEN RETURN NULL; END IF;
    IF NOT was.state = ANY(starts) OR was.claim <> c
       OR of_task AND tid IS NOT NULL AND was.task_id IS DISTINCT FROM tid THEN
        IF again AND was.claim = coalesce(c, was.claim)
           AND (was.state = goal OR falls <> '{}' AND was.earlier IS NULL AND was.state IN ('failed', 'unknown', 'lost'))
           AND was.task_id IS NOT DISTINCT FROM coalesce(tid, was.task_id) THEN RETURN true; END IF;
        -- Somebody has named its task meanwhile, or others have followed it to its end.
        IF goal = 'submitted' AND was.claim = c AND was.task_id = tid THEN RETURN true; END IF;
        IF goal = 'submitted' AND 'sending' = ANY(starts) AND was.task_id IS DISTINCT FROM tid
           AND position(chr(10) || tid || chr(10) IN chr(10) || was.past_task_ids) = 0 THEN
            -- Of a POST that the user gave up: paid for, so it is kept.
            UPDATE finevoice.effects SET past_task_ids = past_task_ids || tid || chr(10) WHERE id = row_id;
        END IF;
        RETURN false;
    END IF;
    IF was.earlier IS NOT NULL AND was.state = ANY(falls) THEN
        RETURN finevoice.fall_back(was, gives_back);
    END IF;
    UPDATE finevoice.effects e SET
        state = goal,
        session = CASE goal WHEN 'submitted' THEN (SELECT id FROM finevoice.sessions WHERE id = me)
                            WHEN 'queued' THEN CASE WHEN e.state = 'sending' THEN e.session END END,
        place = CASE goal WHEN 'submitted' THEN 'infinity'
                          WHEN 'unknown' THEN CASE WHEN gives_back THEN NULL ELSE clock_timestamp() + hold END
                          WHEN 'queued' THEN CASE WHEN e.state = 'sending' THEN e.place END END,
        task_id = coalesce(tid, CASE WHEN afresh THEN NULL ELSE e.task_id END),
        urls = coalesce(links, CASE WHEN afresh THEN '[]' ELSE e.urls END),
        path = coalesce(where_to, CASE WHEN afresh THEN NULL ELSE e.path END),
        sha256 = coalesce(sum, CASE WHEN afresh THEN NULL ELSE e.sha256 END),
        error = coalesce(why, CASE WHEN afresh THEN NULL ELSE e.error END),
        past_task_ids = e.past_task_ids
            || CASE WHEN e.task_id <> tid OR afresh AND e.task_id IS NOT NULL THEN e.task_id || chr(10) ELSE '' END,
        submitted_at = CASE WHEN afresh THEN NULL
                            WHEN goal = 'submitted' OR goal = 'done' AND e.state IN ('sending', 'unknown')
                            THEN at ELSE e.submitted_at END,
        updated_at = at
     WHERE id = row_id;
    IF gives_back AND was.state IN ('sending', 'unknown') THEN
        DELETE FROM finevoice.posts WHERE claim = was.claim;
    END IF;
    IF goal = 'submitted' THEN  -- somebody may have attached its task before it was known whose it is
        DELETE FROM finevoice.strangers WHERE account = a AND task_id = tid;
    END IF;
    PERFORM finevoice.tell(a, NULL, goal, row_id);
    IF goal NOT IN ('submitted', 'saved') THEN PERFORM finevoice.grant_places(a); END IF;
    RETURN true;
END $$;
