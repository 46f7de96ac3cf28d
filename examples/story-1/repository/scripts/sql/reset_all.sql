BEGIN;
DELETE FROM sessions;
UPDATE devices SET registered = 0 WHERE registered = 1;
DROP TABLE applications;
COMMIT;
