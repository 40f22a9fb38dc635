TRUNCATE dedp.devices_aggregates;
INSERT INTO dedp.devices_aggregates
SELECT type, full_name, version, count(*)
FROM dedp.devices_raw
GROUP BY type, full_name, version;
