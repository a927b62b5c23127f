-- Run once by the image's entrypoint, in the database of POSTGRES_DB, when it makes a new cluster: installs the extension
-- in the databases that are there. template1 is among them, so every later CREATE DATABASE has it too.
-- Databases without it (made from template0, or by an older image) get it from schema-notifications-converge.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS schema_notifications;
\connect postgres
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS schema_notifications;
\connect template1
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS schema_notifications;
