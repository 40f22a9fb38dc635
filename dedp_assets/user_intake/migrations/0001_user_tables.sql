-- The tables of the user intake. Databases have this file as it stands: a change is a migration after it.

CREATE SCHEMA IF NOT EXISTS dedp;

-- Users have no password here, and none anywhere else.
CREATE TABLE dedp.users (
    firstname text NOT NULL,
    lastname  text NOT NULL,
    country   text NOT NULL,
    username  text NOT NULL,
    email     text NOT NULL PRIMARY KEY  -- in its normal form: small letters, Unicode's NFC
);

-- What the row of a user reflects. Not columns of dedp.users, whose form others rely on.
CREATE TABLE dedp.users_as_of (
    email      text        PRIMARY KEY REFERENCES dedp.users ON UPDATE CASCADE ON DELETE CASCADE,
    day        date        NOT NULL,
    fetched_at timestamptz NOT NULL
);

-- The users of a day that could not be stored, of its last fetch.
CREATE TABLE dedp.users_quarantine (
    day      date   NOT NULL,
    number   bigint NOT NULL,  -- the user's place in the fetch; 1 is the first
    reason   text   NOT NULL,  -- one of a few, to group by
    detail   text   NOT NULL,
    raw_user text   NOT NULL,  -- what the raw copy has of it, as JSON in ASCII
    PRIMARY KEY (day, number)
);

-- One row per day: which raw copy is stored, and what became of its users.
CREATE TABLE dedp.users_intakes (
    day         date        PRIMARY KEY,
    sha256      char(64)    NOT NULL,  -- the version of the raw copy
    fetched_at  timestamptz NOT NULL,
    stored_at   timestamptz NOT NULL DEFAULT now(),
    received    bigint      NOT NULL,
    stored      bigint      NOT NULL,
    quarantined bigint      NOT NULL,
    repeated    bigint      NOT NULL,  -- equal to another user of the same fetch
    inserted    bigint      NOT NULL,
    updated     bigint      NOT NULL,
    unchanged   bigint      NOT NULL,
    superseded  bigint      NOT NULL,  -- a later fetch has told of the user since; its values stay
    CHECK (received = stored + quarantined + repeated),
    CHECK (stored = inserted + updated + unchanged + superseded)
);
