-- Replaces the load of a day. The day is the partition of the run, or its logical date.
{% set day = dag_run.partition_key or ds %}
{% set load_id = day.replace("-", "") %}
CREATE TEMPORARY TABLE arrived (type text, full_name text, version text) ON COMMIT DROP;
COPY arrived FROM '{{ params.internal }}/{{ day }}.csv' WITH (FORMAT csv, DELIMITER ';', HEADER);
DELETE FROM dedp.devices_raw WHERE load_id = '{{ load_id }}';
INSERT INTO dedp.devices_raw SELECT type, full_name, version, '{{ load_id }}' FROM arrived;
