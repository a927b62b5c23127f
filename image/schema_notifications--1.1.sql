\echo Use "CREATE EXTENSION schema_notifications" to load this file. \quit

-- Schema-change notifications: every DDL command writes one row to a log and sends one notice on the channel
-- schema_changed, in the transaction of the command. Reads top to bottom as a change travels:
--   1. what is kept      2. the trigger function      3. the event triggers
--   4. changes_since(): what a reader missed          5. status(): is all well?          6. who may do what
--
-- Three rules hold throughout. The user's DDL never fails because of this code. It runs as the superuser who
-- installed it, so search_path is pinned and nothing a user wrote is ever executed. It is on the path of every DDL
-- command, so what is done per command is measured (make bench).

------------------------------------------------------------------------------------------------------------------------
-- 1. What is kept
------------------------------------------------------------------------------------------------------------------------

CREATE SCHEMA schema_notifications;

-- One row per DDL command, written by the transaction of the command: rolled back with it, committed with it.
CREATE TABLE schema_notifications.log (
    id          bigint      NOT NULL,     -- order of execution; commit order may differ, and rollbacks leave gaps
    txid        xid8        NOT NULL,     -- the top-level transaction
    changed_at  timestamptz NOT NULL,
    user_name   name        NOT NULL,     -- the session's user, or the role it had SET
    tag         text        NOT NULL,
    objects     jsonb       NOT NULL,     -- [{"action", "kind", "schema", "identity"}, …]
    -- The one index: changes_since() and retention read by transaction.
    PRIMARY KEY (txid, id)
);
CREATE SEQUENCE schema_notifications.log_id_seq OWNED BY schema_notifications.log.id;

-- How many changes could not be announced in full. A sequence, because it survives the rollback of what failed.
CREATE SEQUENCE schema_notifications.losses;

-- What one event trigger leaves for the next within one command: the drops of an ALTER (sql_drop comes before
-- ddl_command_end), and the mark of a running CREATE/ALTER EXTENSION (objects IS NULL). A setting tells that there is
-- something here, so other commands need not look; a table holds it, because any user can set a setting.
CREATE UNLOGGED TABLE schema_notifications.unfinished (
    txid     xid8 NOT NULL,
    objects  jsonb
);

-- One row. All log rows with txid <= horizon may have been pruned (or were never written: before the installation).
CREATE TABLE schema_notifications.state (
    horizon      xid8 NOT NULL,
    fingerprint  text NOT NULL            -- of this extension's functions, as installed
);

------------------------------------------------------------------------------------------------------------------------
-- 2. The trigger function
------------------------------------------------------------------------------------------------------------------------

-- Retention as configured with ALTER DATABASE … SET or ALTER ROLE ALL SET. The session's own value is not asked: any
-- user could set it, and so prune the log.
CREATE FUNCTION schema_notifications.setting(setting_name text, default_value text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT substr(entry, length(setting_name) + 2)
          FROM pg_db_role_setting, unnest(setconfig) AS entry
         WHERE setrole = 0
           AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
           AND starts_with(entry, setting_name || '=')
         ORDER BY setdatabase DESC LIMIT 1), default_value)
$$;

-- Removes the oldest rows of the log that retention no longer wants: those at its start, in order of transaction, up
-- to the first that is to be kept. Never waits: one pruner at a time holds the state row, others skip. Rows of
-- transactions that a running one precedes are kept, so a cursor made from now on is never older than the horizon.
CREATE FUNCTION schema_notifications.prune(newest_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    oldest_kept timestamptz := now() - schema_notifications.setting('schema_notifications.retention_age', '30 days')::interval;
    first_id    bigint      := newest_id - schema_notifications.setting('schema_notifications.retention_rows', '100000')::bigint + 1;
    running     xid8        := pg_snapshot_xmin(pg_current_snapshot());
    last_pruned xid8;
BEGIN
    -- With REPEATABLE READ and above, a row that another pruner changed would be a serialization failure.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    PERFORM FROM schema_notifications.state FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT max(txid) FILTER (WHERE unwanted) INTO last_pruned
      FROM (SELECT txid, bool_and(txid < running AND (changed_at < oldest_kept OR id < first_id))
                         OVER (ORDER BY txid RANGE UNBOUNDED PRECEDING) AS unwanted
              FROM (SELECT * FROM schema_notifications.log ORDER BY txid LIMIT 1000) AS oldest) AS judged;
    IF last_pruned IS NOT NULL THEN
        DELETE FROM schema_notifications.log WHERE txid <= last_pruned;
        UPDATE schema_notifications.state SET horizon = greatest(horizon, last_pruned);
    END IF;
END
$$;

-- Logs and announces the DDL command that has just run. Called at ddl_command_end for what was created and altered,
-- and just before that at sql_drop for what was dropped; PostgreSQL tells each only to its own event.
CREATE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now_at    timestamptz := clock_timestamp();
    pure_drop boolean     := tg_tag LIKE 'DROP %';
    user_name name        := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
    changes   jsonb;
    dropped   jsonb;
    log_id    bigint;
    payload   text;
BEGIN
    IF pure_drop AND tg_event = 'ddl_command_end' THEN
        RETURN;     -- sql_drop has announced it
    END IF;

    BEGIN
        -- What changed.
        IF tg_event = 'sql_drop' THEN
            -- "original OR normal": what was named, and what depended on it, but not its inner parts.
            SELECT jsonb_agg(jsonb_build_object('action', 'dropped', 'kind', object_type, 'schema', schema_name, 'identity', object_identity))
              INTO changes
              FROM pg_event_trigger_dropped_objects()
             WHERE (original OR normal) AND NOT is_temporary
               AND NOT (schema_name IS NULL AND cardinality(address_names) > 1 AND address_names[1] = 'pg_temp');
            IF changes IS NULL THEN
                RETURN;
            END IF;
            IF current_setting('schema_notifications.unfinished', true) = 'on'
               AND EXISTS (SELECT FROM schema_notifications.unfinished AS u WHERE u.txid = pg_current_xact_id() AND u.objects IS NULL) THEN
                RETURN;     -- a step of an extension's script
            END IF;
            IF NOT pure_drop THEN
                INSERT INTO schema_notifications.unfinished VALUES (pg_current_xact_id(), changes);
                PERFORM set_config('schema_notifications.unfinished', 'on', true);
                RETURN;     -- ddl_command_end follows
            END IF;
        ELSE
            SELECT jsonb_agg(jsonb_build_object(
                       'action', CASE WHEN command_tag LIKE 'CREATE %' OR command_tag = 'SELECT INTO' THEN 'created' ELSE 'altered' END,
                       'kind', lower(object_type), 'schema', schema_name, 'identity', object_identity))
              INTO changes
              FROM pg_event_trigger_ddl_commands() AS c
             WHERE NOT in_extension AND schema_name IS DISTINCT FROM 'pg_temp'
               AND NOT (schema_name IS NULL
                        AND classid IN ('pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass)
                        AND (SELECT object_names[1] FROM pg_identify_object_as_address(classid, objid, 0)) = 'pg_temp');
            IF current_setting('schema_notifications.unfinished', true) = 'on' THEN
                WITH finished AS (
                    DELETE FROM schema_notifications.unfinished AS u
                     WHERE u.txid = pg_current_xact_id()
                       AND (u.objects IS NOT NULL OR tg_tag IN ('CREATE EXTENSION', 'ALTER EXTENSION'))
                    RETURNING u.objects)
                SELECT jsonb_agg(object) INTO dropped FROM finished, jsonb_array_elements(finished.objects) AS object;
                changes := coalesce(dropped || changes, dropped, changes);
                IF NOT EXISTS (SELECT FROM schema_notifications.unfinished AS u WHERE u.txid = pg_current_xact_id()) THEN
                    PERFORM set_config('schema_notifications.unfinished', '', true);
                END IF;
            END IF;
            IF changes IS NULL THEN
                RETURN;     -- nothing changed, or only what is temporary or part of an extension
            END IF;
        END IF;

        -- The log row. Only the database's owner (or a superuser) can do without.
        IF coalesce(current_setting('schema_notifications.log', true), '') NOT IN ('off', 'false', 'no', '0')
           OR NOT pg_has_role(session_user, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER') THEN
            log_id := nextval('schema_notifications.log_id_seq');
            INSERT INTO schema_notifications.log VALUES (log_id, pg_current_xact_id(), now_at, user_name, tg_tag, changes);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        log_id := NULL;
        RAISE WARNING 'schema change "%" in database "%" was not logged: %', tg_tag, current_database(), sqlerrm
            USING HINT = 'The command itself succeeded. SELECT * FROM schema_notifications.status() tells the state of the feed.';
        PERFORM nextval('schema_notifications.losses');
    END;

    -- The notice.
    IF coalesce(current_setting('schema_notifications.notify', true), '') NOT IN ('off', 'false', 'no', '0') THEN
        BEGIN
            payload := '{"type":"ddl_command_end","tag":"' || tg_tag
                || '","timestamp":"' || to_char(now_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS"+00"')
                || coalesce('","id":' || log_id, '"') || ',"database":' || to_json(current_database())::text
                || ',"user":' || to_json(user_name)::text || ',"txid":"' || pg_current_xact_id()::text || '"';
            IF octet_length(payload) + coalesce(octet_length(changes::text), 8000) > 7999 - length(',"objects":}') THEN
                payload := payload || ',"truncated":true}';
            ELSE
                payload := payload || ',"objects":' || changes::text || '}';
            END IF;
            IF pg_notification_queue_usage() > 0.9 THEN
                RAISE EXCEPTION 'the notification queue is full'
                    USING HINT = 'A listener sits in a long transaction: see pg_stat_activity for its backend_xmin.';
            END IF;
            PERFORM pg_notify('schema_changed', payload);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'schema change "%" in database "%" was not announced: %', tg_tag, current_database(), sqlerrm
                USING HINT = 'The command itself succeeded. SELECT * FROM schema_notifications.status() tells the state of the feed.';
            PERFORM nextval('schema_notifications.losses');
        END;
    END IF;

    -- Retention, in passing.
    IF log_id % 128 = 0 THEN
        BEGIN
            PERFORM schema_notifications.prune(log_id);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'the log of schema changes in database "%" was not pruned: %', current_database(), sqlerrm;
        END;
    END IF;
END
$$;

-- Marks that an extension's script runs, so that what it drops is not announced piece by piece.
CREATE FUNCTION schema_notifications.mark_extension_script() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO schema_notifications.unfinished VALUES (pg_current_xact_id(), NULL);
    PERFORM set_config('schema_notifications.unfinished', 'on', true);
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'the objects that "%" drops in database "%" will be announced one by one: %', tg_tag, current_database(), sqlerrm;
END
$$;

------------------------------------------------------------------------------------------------------------------------
-- 3. The event triggers
------------------------------------------------------------------------------------------------------------------------

CREATE EVENT TRIGGER schema_notifications_ddl_command_end ON ddl_command_end
    EXECUTE FUNCTION schema_notifications.notify_schema_change();
CREATE EVENT TRIGGER schema_notifications_sql_drop ON sql_drop
    EXECUTE FUNCTION schema_notifications.notify_schema_change();
CREATE EVENT TRIGGER schema_notifications_extension_start ON ddl_command_start
    WHEN TAG IN ('CREATE EXTENSION', 'ALTER EXTENSION')
    EXECUTE FUNCTION schema_notifications.mark_extension_script();

-- Also under session_replication_role = replica: a subscriber's schema changes are changes.
ALTER EVENT TRIGGER schema_notifications_ddl_command_end ENABLE ALWAYS;
ALTER EVENT TRIGGER schema_notifications_sql_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER schema_notifications_extension_start ENABLE ALWAYS;

------------------------------------------------------------------------------------------------------------------------
-- 4. What a reader missed
------------------------------------------------------------------------------------------------------------------------

-- A cursor says which transactions a reader has seen, and where:
-- "1-<system identifier>-<database oid>-<timeline>-<xmin>.<xmax>.<xip>_<xip>", the last part being a pg_snapshot.
CREATE FUNCTION schema_notifications.make_cursor(seen pg_snapshot) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('1-%s-%s-%s-%s',
                  (SELECT system_identifier FROM pg_control_system()),
                  (SELECT oid FROM pg_database WHERE datname = current_database()),
                  ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,
                  translate(seen::text, ':,', '._'))
$$;

-- The committed changes that the reader who holds this cursor has not seen, ordered by id (kind = 'change'), then one
-- row of kind 'cursor' with the new cursor to keep. Or, when that cannot be told any more, a single row of kind
-- 'reset': read the schema again and go on from the cursor in that row; tag holds the reason.
-- No cursor: just a cursor that means "from now on". max_rows ends the answer with the transaction that reaches it
-- (transactions are never split); the next call goes on from there.
-- STABLE matters: all queries in here see the one snapshot of the caller's query.
CREATE FUNCTION schema_notifications.changes_since(since text DEFAULT NULL, max_rows integer DEFAULT NULL)
RETURNS TABLE (kind text, "cursor" text, id bigint, txid xid8, changed_at timestamptz, user_name name, tag text, objects jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    visible   pg_snapshot;                     -- whose changes this query sees
    seen      pg_snapshot;                     -- whose changes the reader has seen
    seen_last xid8;                            -- the last transaction of this answer, when max_rows ends it
    fresh     text;
    reason    text;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'schema_notifications.changes_since() works on the primary only'
            USING ERRCODE = 'feature_not_supported', HINT = 'A standby does not know which transactions are running. Connect to the primary.';
    END IF;

    -- The reader's own transaction is not over: leave its changes for later. PostgreSQL omits it from its own snapshot.
    visible := pg_current_snapshot();
    IF pg_current_xact_id_if_assigned() < pg_snapshot_xmax(visible) THEN
        visible := (SELECT format('%s:%s:%s', least(pg_snapshot_xmin(visible), pg_current_xact_id_if_assigned()),
                                  pg_snapshot_xmax(visible), string_agg(xip::text, ',' ORDER BY xip))::pg_snapshot
                      FROM (SELECT pg_snapshot_xip(visible) UNION SELECT pg_current_xact_id_if_assigned()) AS running(xip));
    END IF;
    fresh := schema_notifications.make_cursor(visible);

    IF since IS NULL THEN
        RETURN QUERY SELECT 'cursor', fresh, NULL::bigint, NULL::xid8, NULL::timestamptz, NULL::name, NULL, NULL::jsonb;
        RETURN;
    END IF;

    IF since !~ '^1-\d+-\d+-\d+-\d+\.\d+\.[\d_]*$' THEN
        reason := 'this is not a cursor of this version';
    ELSIF split_part(since, '-', 2) <> split_part(fresh, '-', 2) THEN
        reason := 'the cursor is from another cluster';
    ELSIF split_part(since, '-', 3) <> split_part(fresh, '-', 3) THEN
        reason := 'the cursor is from another database';
    ELSIF split_part(since, '-', 4) <> split_part(fresh, '-', 4) THEN
        reason := 'the cursor is from another timeline: the cluster was restored or failed over';
    ELSE
        BEGIN
            seen := translate(split_part(since, '-', 5), '._', ':,')::pg_snapshot;
        EXCEPTION WHEN OTHERS THEN
            reason := 'this is not a cursor of this version';
        END;
        IF pg_snapshot_xmax(seen) > pg_snapshot_xmax(visible) THEN
            reason := 'the cursor is from the future: the cluster was restored from a copy';
        ELSIF pg_snapshot_xmin(seen) <= (SELECT horizon FROM schema_notifications.state) THEN
            reason := 'the cursor is older than the log: retention has pruned what came after it';
        END IF;
    END IF;
    IF reason IS NOT NULL THEN
        RETURN QUERY SELECT 'reset', fresh, NULL::bigint, NULL::xid8, NULL::timestamptz, NULL::name, reason, NULL::jsonb;
        RETURN;
    END IF;

    -- Not seen: what started after the cursor, and what ran when it was made. Both are found by the index.
    IF max_rows IS NOT NULL THEN
        SELECT unseen.txid INTO seen_last
          FROM (SELECT l.txid FROM schema_notifications.log AS l WHERE l.txid >= pg_snapshot_xmax(seen)
                UNION ALL
                SELECT l.txid FROM schema_notifications.log AS l WHERE l.txid = ANY (ARRAY(SELECT pg_snapshot_xip(seen)))) AS unseen
         WHERE pg_visible_in_snapshot(unseen.txid, visible)
         ORDER BY unseen.txid OFFSET greatest(max_rows, 1) - 1 LIMIT 1;
    END IF;
    RETURN QUERY
        SELECT 'change', NULL, unseen.*
          FROM (SELECT l.* FROM schema_notifications.log AS l WHERE l.txid >= pg_snapshot_xmax(seen)
                UNION ALL
                SELECT l.* FROM schema_notifications.log AS l WHERE l.txid = ANY (ARRAY(SELECT pg_snapshot_xip(seen)))) AS unseen
         WHERE pg_visible_in_snapshot(unseen.txid, visible) AND (seen_last IS NULL OR unseen.txid <= seen_last)
         ORDER BY unseen.id;

    -- Cut short: seen are now the former ones, and all up to seen_last but for those still running.
    IF seen_last IS NOT NULL THEN
        SELECT schema_notifications.make_cursor(format('%s:%s:%s', coalesce(min(xip), seen_end), seen_end, string_agg(xip::text, ',' ORDER BY xip))::pg_snapshot)
          INTO fresh
          FROM (SELECT greatest(pg_snapshot_xmax(seen), (seen_last::text::numeric + 1)::text::xid8)) AS _(seen_end)
          LEFT JOIN (SELECT pg_snapshot_xip(visible) UNION SELECT xip FROM pg_snapshot_xip(seen) AS xip WHERE xip > seen_last) AS unseen(xip)
                 ON xip < seen_end
         GROUP BY seen_end;
    END IF;
    RETURN QUERY SELECT 'cursor', fresh, NULL::bigint, NULL::xid8, NULL::timestamptz, NULL::name, NULL, NULL::jsonb;
END
$$;

------------------------------------------------------------------------------------------------------------------------
-- 5. Is all well?
------------------------------------------------------------------------------------------------------------------------

-- A digest of this extension's functions, to notice when one was altered.
CREATE FUNCTION schema_notifications.fingerprint() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT md5(string_agg(concat_ws('|', proname, prosrc, prosecdef, proconfig), E'\n' ORDER BY proname))
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
       AND (evtname, evtevent, evtfoid) IN (
               ('schema_notifications_ddl_command_end', 'ddl_command_end', 'schema_notifications.notify_schema_change'::regproc),
               ('schema_notifications_sql_drop', 'sql_drop', 'schema_notifications.notify_schema_change'::regproc),
               ('schema_notifications_extension_start', 'ddl_command_start', 'schema_notifications.mark_extension_script'::regproc));
    SELECT fingerprint = schema_notifications.fingerprint() INTO function_unaltered FROM schema_notifications.state;
    SELECT changed_at INTO last_change FROM schema_notifications.log ORDER BY txid DESC, id DESC LIMIT 1;
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO losses FROM schema_notifications.losses;
    SELECT count(*), pg_total_relation_size('schema_notifications.log') INTO log_rows, log_bytes FROM schema_notifications.log;
    queue_usage := pg_notification_queue_usage();

    problem := nullif(concat_ws(' ',
        CASE WHEN NOT triggers_enabled THEN
            'An event trigger is missing or disabled: run ALTER EVENT TRIGGER … ENABLE ALWAYS for schema_notifications_ddl_command_end, '
            'schema_notifications_sql_drop and schema_notifications_extension_start (and SET event_triggers = on).' END,
        CASE WHEN function_unaltered IS NOT TRUE THEN
            'A function of the extension was altered: DROP EXTENSION schema_notifications, then CREATE EXTENSION schema_notifications.' END,
        CASE WHEN version_available IS NULL THEN
            'The server has no files of the extension: start it from the image that has them.'
             WHEN version_available <> version_installed THEN
            format('Version %s is installed, %s is available: run ALTER EXTENSION schema_notifications UPDATE.', version_installed, version_available) END,
        CASE WHEN losses > 0 THEN
            format('%s changes were not logged or not announced: the server log has a WARNING for each. When that is mended, have readers '
                   'read the schema again and run ALTER SEQUENCE schema_notifications.losses RESTART.', losses) END,
        CASE WHEN queue_usage > 0.5 THEN
            format('The notification queue is %s %% full: end the long transaction of the listener that holds it (pg_stat_activity).', round(100 * queue_usage)) END), '');
    healthy := problem IS NULL;
END
$$;

------------------------------------------------------------------------------------------------------------------------
-- 6. Who may do what
------------------------------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA schema_notifications FROM PUBLIC;
GRANT USAGE ON SCHEMA schema_notifications TO pg_database_owner, pg_monitor;
GRANT EXECUTE ON FUNCTION schema_notifications.changes_since(text, integer) TO pg_database_owner;
GRANT EXECUTE ON FUNCTION schema_notifications.status() TO pg_database_owner, pg_monitor;

INSERT INTO schema_notifications.state VALUES (pg_current_xact_id(), schema_notifications.fingerprint());
