\echo Use "ALTER EXTENSION schema_notifications UPDATE" to load this file. \quit

-- 1.0 to 1.1: status() tells whether the notifications work; user_name respects SET ROLE; partitions that
-- are dropped with their table are told. The triggers stay in place
-- throughout, so no change goes unnoticed, and the log keeps its rows.

ALTER TABLE schema_notifications.log
    ALTER user_name SET DEFAULT CASE current_setting('role') WHEN 'none' THEN session_user
                                ELSE current_setting('role')::name END;

ALTER TABLE schema_notifications.state ADD fingerprint text;

-- What the DDL command that fires sql_drop has dropped, likewise: what it named (original) and what depended on that
-- (normal), without the inner parts of these, one of which is a view's rule. A partition is such a part, and yet a table.
CREATE OR REPLACE VIEW schema_notifications.dropped AS
    SELECT jsonb_agg(jsonb_build_object(
               'action', 'dropped', 'kind', object_type, 'schema', schema_name, 'identity', object_identity)) AS objects
      FROM pg_event_trigger_dropped_objects()
     WHERE (original OR normal OR object_type IN ('table', 'foreign table'))
       AND NOT is_temporary
       AND NOT (schema_name IS NULL AND cardinality(address_names) > 1
                AND (address_names[1] = 'pg_temp' OR object_type = 'rule' AND address_names[3] = '_RETURN'))
    HAVING count(*) > 0;

-- Warns that a step failed, and counts it.
CREATE OR REPLACE FUNCTION schema_notifications.lose(tag text, step text, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE WARNING 'schema change "%" in database "%" succeeded, but %: %', tag, current_database(), step, reason
        USING HINT = 'SELECT * FROM schema_notifications.status() tells how the notifications are.';
    PERFORM nextval('schema_notifications.losses');
END
$$;

-- A digest of this extension's functions, to notice when one was altered.
CREATE FUNCTION schema_notifications.fingerprint() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT md5(string_agg(concat_ws('|', proname, prosrc, pg_get_function_sqlbody(oid), prosecdef, proconfig), E'\n'
                          ORDER BY proname))
      FROM pg_proc WHERE pronamespace = 'schema_notifications'::regnamespace
$$;

-- One row on the health of the feed in this database. healthy is false when something needs a hand; problem says what
-- it is and what to do.
CREATE FUNCTION schema_notifications.status(
    OUT version_installed text, OUT version_available text, OUT triggers_enabled boolean, OUT function_unaltered boolean,
    OUT last_change timestamptz, OUT losses bigint, OUT log_rows bigint, OUT log_bytes bigint,
    OUT queue_usage double precision, OUT healthy boolean, OUT problem text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    SELECT extversion INTO version_installed FROM pg_extension WHERE extname = 'schema_notifications';
    SELECT default_version INTO version_available FROM pg_available_extensions WHERE name = 'schema_notifications';
    SELECT count(*) = 3 AND coalesce(current_setting('event_triggers', true), 'on') = 'on' INTO triggers_enabled
      FROM pg_event_trigger
     WHERE evtenabled = 'A'
       AND (evtname, evtevent, evtfoid::regproc::text) IN (
               ('schema_notifications_ddl_command_end', 'ddl_command_end', 'schema_notifications.notify_schema_change'),
               ('schema_notifications_sql_drop', 'sql_drop', 'schema_notifications.notify_schema_change'),
               ('schema_notifications_extension_start', 'ddl_command_start',
                'schema_notifications.prepare_extension_command'));
    SELECT fingerprint = schema_notifications.fingerprint() INTO function_unaltered FROM schema_notifications.state;
    SELECT changed_at INTO last_change FROM schema_notifications.log ORDER BY txid DESC, id DESC LIMIT 1;
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO losses FROM schema_notifications.losses;
    SELECT count(*), pg_total_relation_size('schema_notifications.log') INTO log_rows, log_bytes
      FROM schema_notifications.log;
    queue_usage := pg_notification_queue_usage();

    problem := nullif(concat_ws(' ',
        CASE WHEN NOT triggers_enabled THEN
            'An event trigger is missing or disabled: run ALTER EVENT TRIGGER ... ENABLE ALWAYS for '
            'schema_notifications_ddl_command_end, schema_notifications_sql_drop and schema_notifications_extension_start, '
            'and see that the setting event_triggers, where there is one, is on.' END,
        CASE WHEN function_unaltered IS NOT TRUE THEN
            'A function of the extension was altered: run DROP EXTENSION schema_notifications and CREATE EXTENSION '
            'schema_notifications.' END,
        CASE WHEN version_available IS NULL THEN
            'The server has no files of the extension: start it from the image that has them.'
             WHEN version_available <> version_installed THEN
            format('Version %s is installed, %s is available: run ALTER EXTENSION schema_notifications UPDATE.',
                   version_installed, version_available) END,
        CASE WHEN losses > 0 THEN
            format('%s changes were not logged or not announced: the server log has a WARNING for each. When that is mended, '
                   'have readers read the schema again and run ALTER SEQUENCE schema_notifications.losses RESTART.', losses) END,
        CASE WHEN queue_usage > 0.5 THEN
            format('The notification queue is %s %% full: end the long transaction of the listener that holds it '
                   '(see pg_stat_activity).', round(100 * queue_usage)) END), '');
    healthy := problem IS NULL;
END
$$;

REVOKE ALL ON FUNCTION schema_notifications.fingerprint(), schema_notifications.status() FROM PUBLIC;
GRANT USAGE ON SCHEMA schema_notifications TO pg_monitor;
GRANT EXECUTE ON FUNCTION schema_notifications.status() TO pg_database_owner, pg_monitor;

UPDATE schema_notifications.state SET fingerprint = schema_notifications.fingerprint();
ALTER TABLE schema_notifications.state ALTER fingerprint SET NOT NULL;
