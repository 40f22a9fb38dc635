-- The aggregator's tables. Databases have it as it stands: what is to change is a migration after it.
--
-- The totals are exact in every snapshot because a reader of the view devices_aggregates adds what is not
-- folded in yet to what is: merge on read. Folding (folding.py) moves rows from the second part to the first
-- and changes no total.

CREATE SCHEMA IF NOT EXISTS dedp;
CREATE SCHEMA IF NOT EXISTS dedp_loads;
COMMENT ON SCHEMA dedp_loads IS 'One table per load: the partitions of dedp.devices_raw. Write through dedp.devices_raw.';

-- One row per load, written in the same transaction as the load itself.
CREATE TABLE dedp.devices_loads (
    load_id          char(8)     PRIMARY KEY,
    sha256           char(64),               -- of the file that the load reflects
    lines_read       bigint      NOT NULL DEFAULT 0,
    rows_loaded      bigint      NOT NULL DEFAULT 0,
    rows_quarantined bigint      NOT NULL DEFAULT 0,
    loaded_at        timestamptz NOT NULL DEFAULT now(),
    folded           boolean     NOT NULL DEFAULT false,  -- are its rows in devices_folded?
    CHECK (lines_read = rows_loaded + rows_quarantined)
);

CREATE TABLE dedp.devices_raw (
    type      varchar(15) NOT NULL,
    full_name varchar(50) NOT NULL,
    version   varchar(40) NOT NULL,
    load_id   char(8)     NOT NULL,
    PRIMARY KEY (type, full_name, version, load_id)
) PARTITION BY LIST (load_id);

CREATE TABLE dedp.devices_quarantine (
    load_id     char(8) NOT NULL,
    line_number bigint  NOT NULL,  -- 1 is the header
    reason      text    NOT NULL,  -- one of a few, to group by
    detail      text    NOT NULL,
    line        text    NOT NULL,  -- to read: what is not UTF-8, and NUL, stands as \xNN
    raw_line    bytea   NOT NULL,  -- the bytes as they came, without the line's end
    PRIMARY KEY (load_id, line_number)
);

-- Occurrences of the loads that have been folded in.
CREATE TABLE dedp.devices_folded (
    type            varchar(15) NOT NULL,
    full_name       varchar(50) NOT NULL,
    version         varchar(40) NOT NULL,
    all_occurrences bigint      NOT NULL,
    PRIMARY KEY (type, full_name, version)
) WITH (fillfactor = 80);

-- What happened to folded loads since: +1 for a row that came, -1 for one that went.
CREATE TABLE dedp.devices_changes (
    load_id   char(8)     NOT NULL,
    type      varchar(15) NOT NULL,
    full_name varchar(50) NOT NULL,
    version   varchar(40) NOT NULL,
    change    smallint    NOT NULL
);
CREATE INDEX ON dedp.devices_changes (load_id);

CREATE VIEW dedp.devices_aggregates AS
SELECT type, full_name, version, sum(occurrences)::bigint AS all_occurrences
FROM (
    SELECT type, full_name, version, all_occurrences AS occurrences
    FROM dedp.devices_folded
    UNION ALL
    SELECT type, full_name, version, change
    FROM dedp.devices_changes
    UNION ALL
    SELECT unfolded.type, unfolded.full_name, unfolded.version, 1
    FROM dedp.devices_loads AS loads
    CROSS JOIN LATERAL (
        SELECT type, full_name, version
        FROM dedp.devices_raw
        WHERE devices_raw.load_id = loads.load_id
        OFFSET 0  -- keeps this a loop over loads, which reads their partitions and no others
    ) AS unfolded
    WHERE NOT loads.folded
) AS parts
GROUP BY type, full_name, version
HAVING sum(occurrences) <> 0;
COMMENT ON VIEW dedp.devices_aggregates IS 'In how many loads each device occurs: exact in every snapshot.';

-- Any other write to devices_raw (a load that is done again, a DELETE by hand) is noted here. Rows of a load
-- that is not folded need no note. The share lock makes a write and a fold of the same load wait for each other.
CREATE FUNCTION dedp.note_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        PERFORM FROM dedp.devices_loads
        WHERE load_id IN (SELECT DISTINCT load_id FROM old_rows) ORDER BY load_id FOR SHARE;
        INSERT INTO dedp.devices_changes
        SELECT load_id, type, full_name, version, -1
        FROM old_rows JOIN dedp.devices_loads USING (load_id) WHERE folded;
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        PERFORM FROM dedp.devices_loads
        WHERE load_id IN (SELECT DISTINCT load_id FROM new_rows) ORDER BY load_id FOR SHARE;
        INSERT INTO dedp.devices_changes
        SELECT load_id, type, full_name, version, 1
        FROM new_rows JOIN dedp.devices_loads USING (load_id) WHERE folded;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER note_inserts AFTER INSERT ON dedp.devices_raw
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_changes();
CREATE TRIGGER note_updates AFTER UPDATE ON dedp.devices_raw
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_changes();
CREATE TRIGGER note_deletes AFTER DELETE ON dedp.devices_raw
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_changes();

-- Forgets what was folded, so that every total is counted anew from devices_raw: after a TRUNCATE, and the way
-- back after somebody changed a partition's table directly, where no trigger sees it.
CREATE FUNCTION dedp.unfold_all() RETURNS void LANGUAGE sql AS $$
    UPDATE dedp.devices_loads SET folded = false;
    DELETE FROM dedp.devices_folded;
    DELETE FROM dedp.devices_changes;
$$;

CREATE FUNCTION dedp.note_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dedp.unfold_all();
    RETURN NULL;
END $$;

CREATE TRIGGER note_truncate AFTER TRUNCATE ON dedp.devices_raw
    FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_truncate();
