--
-- PostgreSQL database dump
--


-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: dedp; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA dedp;


--
-- Name: SCHEMA dedp; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA dedp IS 'dedp tables, version 1';


--
-- Name: dedp_loads; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA dedp_loads;


--
-- Name: SCHEMA dedp_loads; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA dedp_loads IS 'One table per load: the partitions of dedp.devices_raw. Write through dedp.devices_raw.';


--
-- Name: note_changes(); Type: FUNCTION; Schema: dedp; Owner: -
--

CREATE FUNCTION dedp.note_changes() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: note_truncate(); Type: FUNCTION; Schema: dedp; Owner: -
--

CREATE FUNCTION dedp.note_truncate() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM dedp.unfold_all();
    RETURN NULL;
END $$;


--
-- Name: unfold_all(); Type: FUNCTION; Schema: dedp; Owner: -
--

CREATE FUNCTION dedp.unfold_all() RETURNS void
    LANGUAGE sql
    AS $$
    UPDATE dedp.devices_loads SET folded = false;
    DELETE FROM dedp.devices_folded;
    DELETE FROM dedp.devices_changes;
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: devices_changes; Type: TABLE; Schema: dedp; Owner: -
--

CREATE TABLE dedp.devices_changes (
    load_id character(8) NOT NULL,
    type character varying(15) NOT NULL,
    full_name character varying(50) NOT NULL,
    version character varying(40) NOT NULL,
    change smallint NOT NULL
);


--
-- Name: devices_folded; Type: TABLE; Schema: dedp; Owner: -
--

CREATE TABLE dedp.devices_folded (
    type character varying(15) NOT NULL,
    full_name character varying(50) NOT NULL,
    version character varying(40) NOT NULL,
    all_occurrences bigint NOT NULL
)
WITH (fillfactor='80');


--
-- Name: devices_loads; Type: TABLE; Schema: dedp; Owner: -
--

CREATE TABLE dedp.devices_loads (
    load_id character(8) NOT NULL,
    sha256 character(64),
    lines_read bigint DEFAULT 0 NOT NULL,
    rows_loaded bigint DEFAULT 0 NOT NULL,
    rows_quarantined bigint DEFAULT 0 NOT NULL,
    loaded_at timestamp with time zone DEFAULT now() NOT NULL,
    folded boolean DEFAULT false NOT NULL,
    CONSTRAINT devices_loads_check CHECK ((lines_read = (rows_loaded + rows_quarantined)))
);


--
-- Name: devices_raw; Type: TABLE; Schema: dedp; Owner: -
--

CREATE TABLE dedp.devices_raw (
    type character varying(15) NOT NULL,
    full_name character varying(50) NOT NULL,
    version character varying(40) NOT NULL,
    load_id character(8) NOT NULL
)
PARTITION BY LIST (load_id);


--
-- Name: devices_aggregates; Type: VIEW; Schema: dedp; Owner: -
--

CREATE VIEW dedp.devices_aggregates AS
 SELECT type,
    full_name,
    version,
    (sum(occurrences))::bigint AS all_occurrences
   FROM ( SELECT devices_folded.type,
            devices_folded.full_name,
            devices_folded.version,
            devices_folded.all_occurrences AS occurrences
           FROM dedp.devices_folded
        UNION ALL
         SELECT devices_changes.type,
            devices_changes.full_name,
            devices_changes.version,
            devices_changes.change
           FROM dedp.devices_changes
        UNION ALL
         SELECT unfolded.type,
            unfolded.full_name,
            unfolded.version,
            1
           FROM (dedp.devices_loads loads
             CROSS JOIN LATERAL ( SELECT devices_raw.type,
                    devices_raw.full_name,
                    devices_raw.version
                   FROM dedp.devices_raw
                  WHERE (devices_raw.load_id = loads.load_id)
                 OFFSET 0) unfolded)
          WHERE (NOT loads.folded)) parts
  GROUP BY type, full_name, version
 HAVING (sum(occurrences) <> (0)::numeric);


--
-- Name: VIEW devices_aggregates; Type: COMMENT; Schema: dedp; Owner: -
--

COMMENT ON VIEW dedp.devices_aggregates IS 'In how many loads each device occurs: exact in every snapshot.';


--
-- Name: devices_quarantine; Type: TABLE; Schema: dedp; Owner: -
--

CREATE TABLE dedp.devices_quarantine (
    load_id character(8) NOT NULL,
    line_number bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    line text NOT NULL,
    raw_line bytea NOT NULL
);


--
-- Name: devices_raw_20240101; Type: TABLE; Schema: dedp_loads; Owner: -
--

CREATE TABLE dedp_loads.devices_raw_20240101 (
    type character varying(15) CONSTRAINT devices_raw_type_not_null NOT NULL,
    full_name character varying(50) CONSTRAINT devices_raw_full_name_not_null NOT NULL,
    version character varying(40) CONSTRAINT devices_raw_version_not_null NOT NULL,
    load_id character(8) DEFAULT '20240101'::bpchar CONSTRAINT devices_raw_load_id_not_null NOT NULL,
    CONSTRAINT devices_raw_20240101_load_id_check CHECK ((load_id = '20240101'::bpchar))
);


--
-- Name: devices_raw_20240102; Type: TABLE; Schema: dedp_loads; Owner: -
--

CREATE TABLE dedp_loads.devices_raw_20240102 (
    type character varying(15) CONSTRAINT devices_raw_type_not_null NOT NULL,
    full_name character varying(50) CONSTRAINT devices_raw_full_name_not_null NOT NULL,
    version character varying(40) CONSTRAINT devices_raw_version_not_null NOT NULL,
    load_id character(8) DEFAULT '20240102'::bpchar CONSTRAINT devices_raw_load_id_not_null NOT NULL,
    CONSTRAINT devices_raw_20240102_load_id_check CHECK ((load_id = '20240102'::bpchar))
);


--
-- Name: devices_raw_20240103; Type: TABLE; Schema: dedp_loads; Owner: -
--

CREATE TABLE dedp_loads.devices_raw_20240103 (
    type character varying(15) CONSTRAINT devices_raw_type_not_null NOT NULL,
    full_name character varying(50) CONSTRAINT devices_raw_full_name_not_null NOT NULL,
    version character varying(40) CONSTRAINT devices_raw_version_not_null NOT NULL,
    load_id character(8) DEFAULT '20240103'::bpchar CONSTRAINT devices_raw_load_id_not_null NOT NULL,
    CONSTRAINT devices_raw_20240103_load_id_check CHECK ((load_id = '20240103'::bpchar))
);


--
-- Name: devices_raw_20240101; Type: TABLE ATTACH; Schema: dedp_loads; Owner: -
--

ALTER TABLE ONLY dedp.devices_raw ATTACH PARTITION dedp_loads.devices_raw_20240101 FOR VALUES IN ('20240101');


--
-- Name: devices_raw_20240102; Type: TABLE ATTACH; Schema: dedp_loads; Owner: -
--

ALTER TABLE ONLY dedp.devices_raw ATTACH PARTITION dedp_loads.devices_raw_20240102 FOR VALUES IN ('20240102');


--
-- Name: devices_raw_20240103; Type: TABLE ATTACH; Schema: dedp_loads; Owner: -
--

ALTER TABLE ONLY dedp.devices_raw ATTACH PARTITION dedp_loads.devices_raw_20240103 FOR VALUES IN ('20240103');


--
-- Data for Name: devices_changes; Type: TABLE DATA; Schema: dedp; Owner: -
--

INSERT INTO dedp.devices_changes VALUES ('20240101', 'phone', 'Nova 2', 'Android 15', -1);
INSERT INTO dedp.devices_changes VALUES ('20240101', 'phone', 'Nova 3', 'Android 15', 1);


--
-- Data for Name: devices_folded; Type: TABLE DATA; Schema: dedp; Owner: -
--

INSERT INTO dedp.devices_folded VALUES ('tv', 'Lux', 'webOS 6', 1);
INSERT INTO dedp.devices_folded VALUES ('phone', 'Nova 2', 'Android 15', 1);
INSERT INTO dedp.devices_folded VALUES ('phone', 'é漢', '2', 1);
INSERT INTO dedp.devices_folded VALUES ('lamp', 'Sol; "mini"', '1.0', 1);
INSERT INTO dedp.devices_folded VALUES ('phone', 'Nova 1', 'Android 14', 2);


--
-- Data for Name: devices_loads; Type: TABLE DATA; Schema: dedp; Owner: -
--

INSERT INTO dedp.devices_loads VALUES ('20240102', 'dfc22d0258649f466faf11db3c7a0222efb7ba4aba6399df0ca4a858efd7d320', 7, 3, 4, '2026-11-26 02:06:13.014232+00', true);
INSERT INTO dedp.devices_loads VALUES ('20240101', '92f9e68da6a41a0f1c6f9b5482759b86598016a0731f5e09209236c1612a2fbe', 3, 3, 0, '2026-11-26 02:06:25.754984+00', true);
INSERT INTO dedp.devices_loads VALUES ('20240103', '1f801d44547c27c6cdcd6a5cbea04b02536b3fd5cc954896e5818b6ea3eb8135', 2, 2, 0, '2026-11-26 02:06:32.959818+00', false);


--
-- Data for Name: devices_quarantine; Type: TABLE DATA; Schema: dedp; Owner: -
--

INSERT INTO dedp.devices_quarantine VALUES ('20240102', 4, 'missing field', '1 of 3 fields', '{........', '\x7b2e2e2e2e2e2e2e2e');
INSERT INTO dedp.devices_quarantine VALUES ('20240102', 6, 'missing value', 'full_name', 'lamp;;2.0', '\x6c616d703b3b322e30');
INSERT INTO dedp.devices_quarantine VALUES ('20240102', 7, 'not UTF-8', 'byte 0xe9 at position 8', 'phone;T\xe9l\xe9;1', '\x70686f6e653b54e96ce93b31');
INSERT INTO dedp.devices_quarantine VALUES ('20240102', 3, 'duplicate', 'of an earlier line', 'phone;Nova 1;Android 14', '\x70686f6e653b4e6f766120313b416e64726f6964203134');


--
-- Data for Name: devices_raw_20240101; Type: TABLE DATA; Schema: dedp_loads; Owner: -
--

INSERT INTO dedp_loads.devices_raw_20240101 VALUES ('phone', 'Nova 1', 'Android 14', '20240101');
INSERT INTO dedp_loads.devices_raw_20240101 VALUES ('tv', 'Lux', 'webOS 6', '20240101');
INSERT INTO dedp_loads.devices_raw_20240101 VALUES ('phone', 'Nova 3', 'Android 15', '20240101');


--
-- Data for Name: devices_raw_20240102; Type: TABLE DATA; Schema: dedp_loads; Owner: -
--

INSERT INTO dedp_loads.devices_raw_20240102 VALUES ('phone', 'Nova 1', 'Android 14', '20240102');
INSERT INTO dedp_loads.devices_raw_20240102 VALUES ('lamp', 'Sol; "mini"', '1.0', '20240102');
INSERT INTO dedp_loads.devices_raw_20240102 VALUES ('phone', 'é漢', '2', '20240102');


--
-- Data for Name: devices_raw_20240103; Type: TABLE DATA; Schema: dedp_loads; Owner: -
--

INSERT INTO dedp_loads.devices_raw_20240103 VALUES ('tv', 'Lux', 'webOS 6', '20240103');
INSERT INTO dedp_loads.devices_raw_20240103 VALUES ('lamp', 'Orb', '3.1', '20240103');


--
-- Name: devices_folded devices_folded_pkey; Type: CONSTRAINT; Schema: dedp; Owner: -
--

ALTER TABLE ONLY dedp.devices_folded
    ADD CONSTRAINT devices_folded_pkey PRIMARY KEY (type, full_name, version);


--
-- Name: devices_loads devices_loads_pkey; Type: CONSTRAINT; Schema: dedp; Owner: -
--

ALTER TABLE ONLY dedp.devices_loads
    ADD CONSTRAINT devices_loads_pkey PRIMARY KEY (load_id);


--
-- Name: devices_quarantine devices_quarantine_pkey; Type: CONSTRAINT; Schema: dedp; Owner: -
--

ALTER TABLE ONLY dedp.devices_quarantine
    ADD CONSTRAINT devices_quarantine_pkey PRIMARY KEY (load_id, line_number);


--
-- Name: devices_raw devices_raw_pkey; Type: CONSTRAINT; Schema: dedp; Owner: -
--

ALTER TABLE ONLY dedp.devices_raw
    ADD CONSTRAINT devices_raw_pkey PRIMARY KEY (type, full_name, version, load_id);


--
-- Name: devices_raw_20240101 devices_raw_20240101_pkey; Type: CONSTRAINT; Schema: dedp_loads; Owner: -
--

ALTER TABLE ONLY dedp_loads.devices_raw_20240101
    ADD CONSTRAINT devices_raw_20240101_pkey PRIMARY KEY (type, full_name, version, load_id);


--
-- Name: devices_raw_20240102 devices_raw_20240102_pkey; Type: CONSTRAINT; Schema: dedp_loads; Owner: -
--

ALTER TABLE ONLY dedp_loads.devices_raw_20240102
    ADD CONSTRAINT devices_raw_20240102_pkey PRIMARY KEY (type, full_name, version, load_id);


--
-- Name: devices_raw_20240103 devices_raw_20240103_pkey; Type: CONSTRAINT; Schema: dedp_loads; Owner: -
--

ALTER TABLE ONLY dedp_loads.devices_raw_20240103
    ADD CONSTRAINT devices_raw_20240103_pkey PRIMARY KEY (type, full_name, version, load_id);


--
-- Name: devices_changes_load_id_idx; Type: INDEX; Schema: dedp; Owner: -
--

CREATE INDEX devices_changes_load_id_idx ON dedp.devices_changes USING btree (load_id);


--
-- Name: devices_raw_20240101_pkey; Type: INDEX ATTACH; Schema: dedp_loads; Owner: -
--

ALTER INDEX dedp.devices_raw_pkey ATTACH PARTITION dedp_loads.devices_raw_20240101_pkey;


--
-- Name: devices_raw_20240102_pkey; Type: INDEX ATTACH; Schema: dedp_loads; Owner: -
--

ALTER INDEX dedp.devices_raw_pkey ATTACH PARTITION dedp_loads.devices_raw_20240102_pkey;


--
-- Name: devices_raw_20240103_pkey; Type: INDEX ATTACH; Schema: dedp_loads; Owner: -
--

ALTER INDEX dedp.devices_raw_pkey ATTACH PARTITION dedp_loads.devices_raw_20240103_pkey;


--
-- Name: devices_raw note_deletes; Type: TRIGGER; Schema: dedp; Owner: -
--

CREATE TRIGGER note_deletes AFTER DELETE ON dedp.devices_raw REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_changes();


--
-- Name: devices_raw note_inserts; Type: TRIGGER; Schema: dedp; Owner: -
--

CREATE TRIGGER note_inserts AFTER INSERT ON dedp.devices_raw REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_changes();


--
-- Name: devices_raw note_truncate; Type: TRIGGER; Schema: dedp; Owner: -
--

CREATE TRIGGER note_truncate AFTER TRUNCATE ON dedp.devices_raw FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_truncate();


--
-- Name: devices_raw note_updates; Type: TRIGGER; Schema: dedp; Owner: -
--

CREATE TRIGGER note_updates AFTER UPDATE ON dedp.devices_raw REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION dedp.note_changes();


--
-- PostgreSQL database dump complete
--


