-- Which logic has made the rows and figures of a delivery. Rows of another logic are loaded again when somebody asks.
ALTER TABLE dedp.promotion_deliveries ADD COLUMN logic text NOT NULL DEFAULT '1';
