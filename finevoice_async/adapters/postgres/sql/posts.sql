-- Submissions that may have been accepted: what budgets count, nobody here knows for how long. One whose row may still
-- say that it was not accepted stands in `posts`, by its claim; of others, once the journal is pruned, only the time is
-- kept.

CREATE OR REPLACE FUNCTION finevoice.sent_since(a text, moment timestamptz) RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT at FROM finevoice.posts WHERE account = a AND at >= moment;
    RETURN QUERY SELECT each FROM finevoice.past_posts p, unnest(p.at) AS each
                  WHERE p.account = a AND p.day >= (moment AT TIME ZONE 'UTC')::date AND each >= moment;
END $$;

-- Seconds until the whole fleet may submit again, where a budget says so; NULL: now.
CREATE OR REPLACE FUNCTION finevoice.free_in(a text, most int, per interval) RETURNS float LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := clock_timestamp() - per;
    last timestamptz;
BEGIN
    IF per IS NULL THEN RETURN NULL; END IF;
    IF EXISTS (SELECT FROM finevoice.past_posts WHERE account = a AND day >= (since AT TIME ZONE 'UTC')::date) THEN
        SELECT at INTO last FROM finevoice.sent_since(a, since) AS at ORDER BY at DESC OFFSET most - 1 LIMIT 1;
    ELSE  -- by the index, however many there are
        SELECT at INTO last FROM finevoice.posts  -- when that many have left since, the next may
         WHERE account = a AND at > since ORDER BY at DESC OFFSET most - 1 LIMIT 1;
    END IF;
    RETURN extract(epoch FROM last + per - clock_timestamp());
END $$;

-- Remove what is settled and old of the next rows after `past`, few enough for one statement. `next` is where to go on;
-- NULL: that was the end.
CREATE OR REPLACE FUNCTION finevoice.prune_effects(
    a text, before timestamptz, past bigint, many int, OUT next bigint, OUT removed bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM finevoice.lock(a);
    SELECT max(id) INTO next FROM (SELECT id FROM finevoice.effects WHERE id > past ORDER BY id LIMIT many) AS found;
    DELETE FROM finevoice.effects
     WHERE id > past AND id <= next AND account = a AND state IN ('saved', 'refused', 'failed') AND updated_at < before;
    GET DIAGNOSTICS removed = ROW_COUNT;
END $$;

-- The same for submissions. One that is a row's last may be given back yet, and stays.
CREATE OR REPLACE FUNCTION finevoice.prune_posts(
    a text, before timestamptz, past timestamptz, many int, OUT next timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM finevoice.lock(a);
    SELECT max(at) INTO next FROM (
        SELECT at FROM finevoice.posts WHERE account = a AND at > past AND at < before ORDER BY at LIMIT many) AS found;
    WITH old AS (
        DELETE FROM finevoice.posts p
         WHERE account = a AND at > past AND at <= next AND NOT EXISTS (SELECT FROM finevoice.effects WHERE claim = p.claim)
        RETURNING at
    )
    INSERT INTO finevoice.past_posts AS kept (account, day, at)
        SELECT a, (at AT TIME ZONE 'UTC')::date AS day, array_agg(at ORDER BY at) FROM old GROUP BY day
        ON CONFLICT (account, day) DO UPDATE SET at = kept.at || excluded.at;
END $$;
