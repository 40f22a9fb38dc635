-- The tables of the client uploads. Databases have this file as it stands: a change is a migration after it.

CREATE SCHEMA IF NOT EXISTS dedp;

-- One row per good line. A file's new version takes the place of its old one, in one transaction.
CREATE TABLE dedp.upload_records (
    client      text   NOT NULL,
    file        text   NOT NULL,
    line_number bigint NOT NULL,  -- in the file; 1 is its first line, which in CSV is the header
    id          text   NOT NULL,
    name        text   NOT NULL,
    value       text   NOT NULL,
    PRIMARY KEY (client, file, line_number)
);

CREATE TABLE dedp.upload_quarantine (
    client      text   NOT NULL,
    file        text   NOT NULL,
    line_number bigint NOT NULL,
    reason      text   NOT NULL,  -- one of a few, to group by
    detail      text   NOT NULL,
    line        text   NOT NULL,  -- to read: what is not UTF-8, and NUL, stands as \xNN
    raw_line    bytea  NOT NULL,  -- the bytes as they came, without the line's end
    PRIMARY KEY (client, file, line_number)
);

-- The ledger: one row per arrival, which is one version of a file.
CREATE TABLE dedp.upload_files (
    client           text        NOT NULL,
    file             text        NOT NULL,
    version          text        NOT NULL,  -- size in bytes : mtime in ns : ctime in ns : inode
    is_current       boolean     NOT NULL,  -- was it dealt with last of this file's versions?
    directory        text        NOT NULL,
    pattern          text        NOT NULL,  -- the pattern of the settings that its name matches
    size_bytes       bigint      NOT NULL,
    modified_at      timestamptz NOT NULL,  -- as the file says
    first_seen_at    timestamptz NOT NULL,
    waited_seconds   float8      NOT NULL,  -- from when it was seen first until a run was requested
    sha256           char(64)    NOT NULL,
    state            text        NOT NULL CHECK (state IN ('received', 'loaded', 'refused')),
    reason           text        NOT NULL DEFAULT '',  -- why it was refused
    lines_read       bigint      NOT NULL DEFAULT 0,
    rows_loaded      bigint      NOT NULL DEFAULT 0,
    rows_quarantined bigint      NOT NULL DEFAULT 0,
    origin           text        NOT NULL DEFAULT '',  -- what started the run
    run_id           text        NOT NULL DEFAULT '',
    dealt_with_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, file, version),
    CHECK (lines_read = rows_loaded + rows_quarantined)
);
CREATE UNIQUE INDEX ON dedp.upload_files (client, file) WHERE is_current;
CREATE INDEX ON dedp.upload_files (dealt_with_at);
CREATE INDEX ON dedp.upload_files (dealt_with_at) WHERE state = 'refused';

-- What the last tick found in each watched directory.
CREATE TABLE dedp.upload_directories (
    client     text        PRIMARY KEY,
    directory  text        NOT NULL,
    state      text        NOT NULL CHECK (state IN ('healthy', 'failing', 'silent', 'given up')),
    since      timestamptz NOT NULL,
    waiting    bigint      NOT NULL,  -- files that are not in the ledger yet
    failures   bigint      NOT NULL,  -- tries to scan it that failed, one after the other
    problem    text        NOT NULL
);

-- One row for the last tick as a whole.
CREATE TABLE dedp.upload_ticks (
    id          integer     PRIMARY KEY CHECK (id = 1),
    ended_at    timestamptz NOT NULL,
    seconds     float8      NOT NULL,
    directories bigint      NOT NULL,
    queue_depth bigint      NOT NULL,  -- complete files that wait for a free run
    timeouts    bigint      NOT NULL   -- reported since the tables were made
);
