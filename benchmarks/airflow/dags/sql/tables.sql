CREATE SCHEMA dedp;

CREATE TABLE dedp.devices_raw (
    type      varchar(15) NOT NULL,
    full_name varchar(50) NOT NULL,
    version   varchar(40) NOT NULL,
    load_id   char(8)     NOT NULL,
    PRIMARY KEY (type, full_name, version, load_id)
);

CREATE TABLE dedp.devices_aggregates (
    type            varchar(15) NOT NULL,
    full_name       varchar(50) NOT NULL,
    version         varchar(40) NOT NULL,
    all_occurrences bigint      NOT NULL,
    PRIMARY KEY (type, full_name, version)
);
