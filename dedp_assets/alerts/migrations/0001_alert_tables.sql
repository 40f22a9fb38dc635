CREATE TABLE dedp.alert_incidents (
    key     text             PRIMARY KEY,
    problem jsonb            NOT NULL,
    state   text             NOT NULL CHECK (state IN ('suspected', 'open', 'over')),
    since   double precision NOT NULL,  -- in s since the epoch, as the next two
    gone_at double precision,
    returns integer          NOT NULL DEFAULT 0
);

CREATE TABLE dedp.alert_messages (
    number     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text        NOT NULL UNIQUE,
    subject    text        NOT NULL,
    text       text        NOT NULL,
    severity   text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A message for each target that it has to reach. A target may hold a token, so only its SHA-256 is here.
CREATE TABLE dedp.alert_deliveries (
    message  bigint      NOT NULL REFERENCES dedp.alert_messages ON DELETE CASCADE,
    target   text        NOT NULL,
    sent_at  timestamptz,
    attempts integer     NOT NULL DEFAULT 0,
    due_at   timestamptz NOT NULL DEFAULT now(),
    problem  text        NOT NULL DEFAULT '',  -- why the last attempt failed
    PRIMARY KEY (message, target)
);

CREATE INDEX alert_deliveries_waiting ON dedp.alert_deliveries (target, message) WHERE sent_at IS NULL;

-- One row: the last time that somebody has looked.
CREATE TABLE dedp.alert_looks (
    id       integer     PRIMARY KEY CHECK (id = 1),
    ended_at timestamptz NOT NULL,
    unseen   text[]      NOT NULL  -- the kinds of problems that could not be looked at
);
