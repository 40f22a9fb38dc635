-- The targets of all processes that look, which may have different settings. Each message goes to all of them,
-- whichever process has found the problem.
CREATE TABLE dedp.alert_targets (
    target  text        PRIMARY KEY,
    seen_at timestamptz NOT NULL  -- when a process that has this target has looked last
);

INSERT INTO dedp.alert_targets (target, seen_at)
SELECT DISTINCT target, now() FROM dedp.alert_deliveries WHERE sent_at IS NULL;
