-- Who may use the web server, and who did what there. Beside Dagster's own tables, in a schema of its own.

CREATE SCHEMA IF NOT EXISTS dedp_sign_in;

CREATE TABLE dedp_sign_in.users (
    name          text        PRIMARY KEY,
    password_hash text        NOT NULL,  -- Argon2id, with salt and parameters
    role          text        NOT NULL CHECK (role IN ('viewer', 'launcher', 'admin')),
    -- Made by `dedp up`, with a password that everybody knows: may sign in from the same machine only.
    is_local      boolean     NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- What a browser or a script shows instead of a password. Of each there is only the SHA-256.
CREATE TABLE dedp_sign_in.sessions (
    token_sha256 bytea       PRIMARY KEY,
    user_name    text        NOT NULL REFERENCES dedp_sign_in.users (name) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    used_at      timestamptz NOT NULL DEFAULT now(),
    address      text        NOT NULL
);
CREATE INDEX ON dedp_sign_in.sessions (user_name);

CREATE TABLE dedp_sign_in.api_tokens (
    token_sha256 bytea       PRIMARY KEY,
    user_name    text        NOT NULL REFERENCES dedp_sign_in.users (name) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz              -- null: never
);
CREATE INDEX ON dedp_sign_in.api_tokens (user_name);

-- Browsers in which a user has signed in before. Wrong passwords from elsewhere do not keep the user out there.
CREATE TABLE dedp_sign_in.known_browsers (
    token_sha256 bytea       PRIMARY KEY,
    user_name    text        NOT NULL REFERENCES dedp_sign_in.users (name) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON dedp_sign_in.known_browsers (user_name);

-- Leaky buckets: wrong passwords fill them, time empties them.
CREATE TABLE dedp_sign_in.wrong_passwords (
    bucket   text             PRIMARY KEY,
    level    double precision NOT NULL,                -- at that time
    at       timestamptz      NOT NULL DEFAULT now(),
    is_taken boolean          NOT NULL DEFAULT true    -- whether the latest attempt still had room
);

-- The name is no reference: what somebody did stays when the user is removed.
CREATE TABLE dedp_sign_in.audit (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    user_name text        NOT NULL,
    role      text,
    address   text        NOT NULL,
    action    text        NOT NULL,           -- a mutation of Dagster, or one of ours
    about     jsonb       NOT NULL DEFAULT '{}',  -- job, assets, partitions, sensor, ...; no run config
    outcome   text,                           -- null: it has begun, and its end was not recorded
    run_ids   text[]      NOT NULL DEFAULT '{}'
);
CREATE INDEX ON dedp_sign_in.audit (at);
CREATE INDEX ON dedp_sign_in.audit USING gin (run_ids);
