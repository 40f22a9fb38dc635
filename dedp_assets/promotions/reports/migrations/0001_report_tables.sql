-- The tables of the promotions' reports. Databases have this file as it stands: a change is a migration after it.

CREATE SCHEMA IF NOT EXISTS dedp;

-- What has changed from a supplier's previous delivery, which is the previous one there is, to that of the day.
CREATE TABLE dedp.promotion_differences (
    supplier     text    NOT NULL,
    day          date    NOT NULL,
    previous_day date    NOT NULL,
    product_id   text    NOT NULL,
    change       text    NOT NULL CHECK (change IN ('added', 'removed', 'changed')),
    price_before numeric,  -- NULL if the product was added
    price_after  numeric,  -- NULL if the product was removed
    PRIMARY KEY (supplier, day, product_id)
);

-- Which loads the differences of a day reflect. Of a supplier's first delivery the previous ones are NULL.
CREATE TABLE dedp.promotion_comparisons (
    supplier             text        NOT NULL,
    day                  date        NOT NULL,
    load_number          bigint      NOT NULL,
    previous_day         date,
    previous_load_number bigint,
    compared_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (supplier, day)
);

-- Which deliveries people have been told of, each version once it was sent.
CREATE TABLE dedp.promotion_notifications (
    supplier text        NOT NULL,
    day      date        NOT NULL,
    version  char(64)    NOT NULL,
    sent_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (supplier, day, version)
);
