-- The tables of the promotions' deliveries. Databases have this file as it stands: a change is a migration after it.

CREATE SCHEMA IF NOT EXISTS dedp;

-- In the order in which loads become visible: a load takes its number under a lock that it holds until it commits.
CREATE SEQUENCE dedp.promotion_load_numbers;

-- One row for each delivery that is loaded, in the version that is loaded.
CREATE TABLE dedp.promotion_deliveries (
    supplier         text        NOT NULL,
    day              date        NOT NULL,
    version          char(64)    NOT NULL,  -- SHA-256 of the delivery: the names and contents of its data files
    load_number      bigint      NOT NULL UNIQUE,  -- a later load has a higher one; another version is another load
    loaded_at        timestamptz NOT NULL DEFAULT now(),
    ready_at         timestamptz NOT NULL,  -- when the delivery was first seen complete, in this version
    is_late          boolean     NOT NULL,  -- was its first version seen after the window had closed?
    files            integer     NOT NULL,
    lines_read       bigint      NOT NULL,
    rows_loaded      bigint      NOT NULL,
    rows_quarantined bigint      NOT NULL,
    run_id           text        NOT NULL DEFAULT '',
    PRIMARY KEY (supplier, day),
    CHECK (lines_read = rows_loaded + rows_quarantined)
);

-- The products of each delivery. A new version takes the place of the old one, in one transaction.
CREATE TABLE dedp.promotions (
    supplier        text    NOT NULL,
    day             date    NOT NULL,
    product_id      text    NOT NULL,
    product         text    NOT NULL,
    price           numeric NOT NULL CHECK (price > 0),
    promotion_price numeric NOT NULL CHECK (promotion_price >= 0),
    starts_on       date    NOT NULL,
    ends_on         date    NOT NULL,
    PRIMARY KEY (supplier, day, product_id)
);

CREATE TABLE dedp.promotion_quarantine (
    supplier    text   NOT NULL,
    day         date   NOT NULL,
    file        text   NOT NULL,
    line_number bigint NOT NULL,
    reason      text   NOT NULL,  -- one of a few, to group by
    detail      text   NOT NULL,
    line        text   NOT NULL,  -- to read: what is not UTF-8, and NUL, stands as \xNN
    raw_line    bytea  NOT NULL,  -- the bytes as they came, without the line's end
    PRIMARY KEY (supplier, day, file, line_number)
);

-- Discounts are in percent of the price.
CREATE TABLE dedp.promotion_metrics (
    supplier      text         NOT NULL,
    day           date         NOT NULL,
    products      bigint       NOT NULL,
    mean_discount numeric(6,2) NOT NULL,
    max_discount  numeric(6,2) NOT NULL,
    load_number   bigint       NOT NULL,  -- of the load that these figures reflect
    PRIMARY KEY (supplier, day)
);
