\echo Use "ALTER EXTENSION schema_notifications UPDATE" to load this file. \quit

-- 1.0 to 1.1: status() tells whether the notifications work; user_name respects SET ROLE; partitions that are dropped with
-- their table are told; many commands in one transaction take less memory. The triggers stay in place throughout, so no
-- change goes unnoticed, and the log keeps its rows.

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

-- Logs and announces the DDL command that has just run. Called at ddl_command_end for what was created and altered,
-- and before that at sql_drop for what was dropped: PostgreSQL tells each only to its own event.
--
-- This is the short way, for the usual case; whatever is unusual, or fails, goes the careful way below. It has no
-- SET search_path, which would cost more than anything else here: PostgreSQL would look up the user's path anew after
-- each call. Instead every name is qualified, operators too, or was resolved when this file ran (views, defaults,
-- RETURN functions). tests/sql/test_attacks.py shadows every function, operator and type there is.
CREATE OR REPLACE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    is_drop  boolean := pg_catalog.starts_with(tg_tag, 'DROP ');
    log_id   bigint;
    payload  pg_catalog.text;
BEGIN
    IF is_drop AND tg_event OPERATOR(pg_catalog.=) 'ddl_command_end' THEN
        RETURN;     -- sql_drop has announced it
    END IF;

    BEGIN
        IF pg_catalog.concat(pg_catalog.current_setting('schema_notifications.notify', true),
                             pg_catalog.current_setting('schema_notifications.log', true),
                             pg_catalog.current_setting('schema_notifications.unfinished', true)) OPERATOR(pg_catalog.<>) ''
           OR pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.>) 0.9
           OR NOT is_drop AND tg_event OPERATOR(pg_catalog.=) 'sql_drop' THEN
            PERFORM schema_notifications.announce_carefully(tg_event, tg_tag);
            RETURN;
        END IF;

        IF is_drop THEN
            INSERT INTO schema_notifications.log AS l (tag, objects)
            SELECT tg_tag, d.objects FROM schema_notifications.dropped AS d
            RETURNING l.id, schema_notifications.payload(l.id, l.txid, l.changed_at, l.user_name, l.tag, l.objects)
                 INTO log_id, payload;
        ELSE
            INSERT INTO schema_notifications.log AS l (tag, objects)
            SELECT tg_tag, c.objects FROM schema_notifications.created_or_altered AS c
            RETURNING l.id, schema_notifications.payload(l.id, l.txid, l.changed_at, l.user_name, l.tag, l.objects)
                 INTO log_id, payload;
        END IF;
        IF log_id IS NULL THEN
            RETURN;     -- nothing has changed
        END IF;

        IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) 7999 THEN
            payload := schema_notifications.truncated(payload);
        END IF;

        IF pg_catalog.mod(log_id, 512) OPERATOR(pg_catalog.=) 0 THEN
            PERFORM schema_notifications.prune(log_id);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        -- All of the above is undone. Find out what works.
        BEGIN
            PERFORM schema_notifications.announce_carefully(tg_event, tg_tag);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'schema change "%" was neither logged nor announced: %', tg_tag, sqlerrm;
        END;
        RETURN;
    END;

    -- Out here, because each block with an EXCEPTION that sends a notice keeps 8 kB until the transaction ends. A payload of
    -- this size cannot fail. (An assignment is faster than PERFORM.)
    payload := pg_catalog.pg_notify('schema_changed', payload);
END
$$;

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

-- Removes from the log what retention no longer wants: the oldest transactions, up to the first that is to be kept, some
-- thousand rows at most. Never waits: one pruner at a time holds the state row, others skip. What a running transaction
-- precedes is kept, so no cursor made from now on is older than the horizon.
CREATE OR REPLACE FUNCTION schema_notifications.prune(newest_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    oldest_kept timestamptz;
    first_kept  bigint;
    running     xid8 := pg_snapshot_xmin(pg_current_snapshot());
    last_pruned xid8;
BEGIN
    oldest_kept := now() - schema_notifications.configured('retention_age', '30 days')::interval;
    first_kept := newest_id - schema_notifications.configured('retention_rows', '100000')::bigint + 1;
    -- With REPEATABLE READ and above, a row that another pruner has changed would be a serialization failure.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    -- Mostly the oldest row is to be kept, and there is nothing to do.
    IF (SELECT txid >= running OR changed_at >= oldest_kept AND id >= first_kept
          FROM schema_notifications.log ORDER BY txid, id LIMIT 1) THEN
        RETURN;
    END IF;
    PERFORM FROM schema_notifications.state FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT max(txid) FILTER (WHERE unwanted) INTO last_pruned
      FROM (SELECT txid, bool_and(txid < running AND (changed_at < oldest_kept OR id < first_kept))
                         OVER (ORDER BY txid) AS unwanted
              FROM (SELECT * FROM schema_notifications.log ORDER BY txid LIMIT 2000) AS oldest) AS judged;
    IF last_pruned IS NOT NULL THEN
        DELETE FROM schema_notifications.log WHERE txid <= last_pruned;
        UPDATE schema_notifications.state SET horizon = greatest(horizon, last_pruned);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'the log of schema changes in database "%" was not pruned: %', current_database(), sqlerrm;
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
