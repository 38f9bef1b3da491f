-- Version 2: what is removed leaves 8 bytes for each of its submissions, and effects have one index less to keep.

CREATE TABLE finevoice.past_posts (  -- submissions whose rows were removed, or that a later one replaced, a day each
    account text NOT NULL,
    day date NOT NULL,               -- in UTC
    at timestamptz[] NOT NULL,
    PRIMARY KEY (account, day)
);

DROP INDEX finevoice.effects_of_session;
