\echo Use "CREATE EXTENSION schema_notifications" to load this file. \quit

-- Schema-change notifications: every DDL command writes one row to a log and sends one notice on the channel
-- schema_changed, in the transaction of the command. Reads top to bottom as a change travels:
--   1. what is kept                                  2. what has changed, and how a notice tells it
--   3. the trigger functions                         4. the event triggers
--   5. changes_since(): what a reader missed         6. status(): is all well?         7. who may do what
--
-- Three rules hold throughout. The user's DDL never fails because of this code. The code runs as the superuser who
-- installed it, so no name in it is ever looked up in a schema of the user's choice. It is on the path of every DDL
-- command, so each thing that is done there has been measured (docs/benchmarks.md).

------------------------------------------------------------------------------------------------------------------------
-- 1. What is kept
------------------------------------------------------------------------------------------------------------------------

CREATE SCHEMA schema_notifications;

CREATE SEQUENCE schema_notifications.log_id_seq;

-- One row per DDL command, written by the transaction of the command: rolled back with it, committed with it.
CREATE TABLE schema_notifications.log (
    -- In order of execution. Commit order may differ, and a rollback leaves a gap.
    id          bigint      NOT NULL DEFAULT nextval('schema_notifications.log_id_seq'),
    txid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who ran it: the session's user, or the role it has SET. (current_user is the owner of the trigger function.)
    user_name   name        NOT NULL DEFAULT CASE current_setting('role') WHEN 'none' THEN session_user
                                             ELSE current_setting('role')::name END,
    tag         text        NOT NULL,
    objects     jsonb       NOT NULL,     -- [{"action": ..., "kind": ..., "schema": ..., "identity": ...}, ...]
    -- The one index: changes_since() and retention read by transaction.
    PRIMARY KEY (txid, id)
);
ALTER SEQUENCE schema_notifications.log_id_seq OWNED BY schema_notifications.log.id;

-- How many changes were not logged or not announced. A sequence, because it survives the rollback of what failed.
CREATE SEQUENCE schema_notifications.losses;

-- The value that a session last gave it is that session's secret, which no user can read: see leave().
CREATE SEQUENCE schema_notifications.secret;

-- One row. All log rows with txid <= horizon may have been pruned.
CREATE TABLE schema_notifications.state (
    horizon      xid8 NOT NULL,
    fingerprint  text NOT NULL            -- of this extension's functions, as installed
);

------------------------------------------------------------------------------------------------------------------------
-- 2. What has changed, and how a notice tells it
------------------------------------------------------------------------------------------------------------------------

-- What the DDL command that fires ddl_command_end has created or altered: one row, or none if nothing. Left out are
-- temporary objects, also those that have no schema of their own (a trigger on a temporary table), and the members of an
-- extension whose script runs.
CREATE VIEW schema_notifications.created_or_altered AS
    SELECT jsonb_agg(jsonb_build_object(
               'action', CASE WHEN command_tag LIKE 'CREATE %' OR command_tag = 'SELECT INTO' THEN 'created'
                              ELSE 'altered' END,
               'kind', lower(object_type), 'schema', schema_name, 'identity', object_identity)) AS objects
      FROM pg_event_trigger_ddl_commands()
     WHERE NOT in_extension
       AND schema_name IS DISTINCT FROM 'pg_temp'
       AND (schema_name IS NULL
            AND classid IN ('pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass)
            AND (pg_identify_object_as_address(classid, objid, 0)).object_names[1] = 'pg_temp') IS NOT TRUE
    HAVING count(*) > 0;

-- What the DDL command that fires sql_drop has dropped, likewise: what it named (original) and what depended on that
-- (normal), without the inner parts of these, one of which is a view's rule. A partition is such a part, and yet a table.
CREATE VIEW schema_notifications.dropped AS
    SELECT jsonb_agg(jsonb_build_object(
               'action', 'dropped', 'kind', object_type, 'schema', schema_name, 'identity', object_identity)) AS objects
      FROM pg_event_trigger_dropped_objects()
     WHERE (original OR normal OR object_type IN ('table', 'foreign table'))
       AND NOT is_temporary
       AND NOT (schema_name IS NULL AND cardinality(address_names) > 1
                AND (address_names[1] = 'pg_temp' OR object_type = 'rule' AND address_names[3] = '_RETURN'))
    HAVING count(*) > 0;

-- The notice of a change, as JSON. Without a log row there is no id, without objects "truncated".
CREATE FUNCTION schema_notifications.payload(
    id bigint, txid xid8, changed_at timestamptz, user_name name, tag text, objects jsonb) RETURNS text
LANGUAGE sql STABLE
RETURN concat('{"type":"ddl_command_end","tag":"', tag,
              '","timestamp":"', to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'), '+00"',
              ',"id":' || id, ',"database":', to_json(current_database()), ',"user":', to_json(user_name),
              ',"txid":"', txid, '"', coalesce(',"objects":' || objects::text, ',"truncated":true'), '}');

-- The same without its objects. (A quote within a JSON string is escaped, so the first ,"objects": is the key.)
CREATE FUNCTION schema_notifications.truncated(payload text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN split_part(payload, ',"objects":', 1) || ',"truncated":true}';

------------------------------------------------------------------------------------------------------------------------
-- 3. The trigger functions
------------------------------------------------------------------------------------------------------------------------

-- Logs and announces the DDL command that has just run. Called at ddl_command_end for what was created and altered,
-- and before that at sql_drop for what was dropped: PostgreSQL tells each only to its own event.
--
-- This is the short way, for the usual case; whatever is unusual, or fails, goes the careful way below. It has no
-- SET search_path, which would cost more than anything else here: PostgreSQL would look up the user's path anew after
-- each call. Instead every name is qualified, operators too, or was resolved when this file ran (views, defaults,
-- RETURN functions). tests/sql/test_attacks.py shadows every function, operator and type there is.
CREATE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger
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

-- Whether a setting, by default on, was set to a word for off.
CREATE FUNCTION schema_notifications.is_off(setting_name text) RETURNS boolean LANGUAGE sql STABLE
RETURN coalesce(lower(current_setting(setting_name, true)), '') IN ('off', 'false', 'no', '0');

-- What one event trigger leaves for the next one of the same command, until the transaction ends: of an ALTER, what it
-- dropped (sql_drop comes before ddl_command_end); of CREATE and ALTER EXTENSION, that a script runs; of DROP EXTENSION,
-- the members of extensions. It is in a setting, which costs little to look at, takes part in rollbacks, and is not in the
-- way of SERIALIZABLE as a table would be. Any user can set a setting, so it begins with a secret. No tag: nothing is left.
CREATE FUNCTION schema_notifications.leave(tag text, objects jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT set_config('schema_notifications.unfinished',
                      CASE WHEN tag IS NULL THEN ''
                           ELSE format('%s %s', secret, jsonb_build_object('tag', tag, 'objects', objects)) END, true)
      FROM setval('schema_notifications.secret', ('x' || right(gen_random_uuid()::text, 12))::bit(48)::bigint + 1) AS secret
$$;

-- What was left, as {"tag": ..., "objects": ...}; NULL if nothing was, or a user wrote it.
CREATE FUNCTION schema_notifications.left_over() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    setting text := current_setting('schema_notifications.unfinished', true);
BEGIN
    IF split_part(setting, ' ', 1) = currval('schema_notifications.secret')::text THEN
        RETURN substr(setting, strpos(setting, ' '))::jsonb;
    END IF;
    RETURN NULL;
EXCEPTION WHEN object_not_in_prerequisite_state THEN
    RETURN NULL;    -- this session has no secret yet
END
$$;

-- The same step by step: heeds the settings, brings together what sql_drop and ddl_command_end tell of one command, keeps
-- quiet about the steps of an extension's script, and when a step fails goes on with the next, warns and counts.
CREATE FUNCTION schema_notifications.announce_carefully(event text, tag text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    is_drop      boolean := starts_with(tag, 'DROP ');
    left_over    jsonb;
    left_objects jsonb;
    in_script    boolean := false;       -- of an extension
    objects      jsonb;
    log_id       bigint;
    changed_at   timestamptz := clock_timestamp();
    payload      text;
BEGIN
    BEGIN
        IF event = 'sql_drop' THEN
            SELECT d.objects INTO objects FROM schema_notifications.dropped AS d;
        ELSE
            SELECT c.objects INTO objects FROM schema_notifications.created_or_altered AS c;
        END IF;

        IF current_setting('schema_notifications.unfinished', true) <> '' THEN
            left_over := schema_notifications.left_over();
            left_objects := nullif(left_over -> 'objects', 'null');
            in_script := left_over ->> 'tag' IN ('CREATE EXTENSION', 'ALTER EXTENSION');
            IF left_over ->> 'tag' = tag AND (is_drop OR event = 'ddl_command_end') THEN
                in_script := false;
                IF tag = 'DROP EXTENSION' THEN
                    objects := (SELECT jsonb_agg(object) FROM jsonb_array_elements(objects) AS object
                                 WHERE object NOT IN (SELECT jsonb_array_elements(left_objects)));
                ELSE
                    objects := coalesce(left_objects || objects, left_objects, objects);
                END IF;
            END IF;
            IF in_script IS NOT TRUE THEN
                PERFORM schema_notifications.leave(NULL, NULL);
            END IF;
        END IF;
        IF objects IS NULL OR event = 'sql_drop' AND in_script THEN
            RETURN;
        END IF;
        IF event = 'sql_drop' AND NOT is_drop THEN
            PERFORM schema_notifications.leave(tag, objects);
            RETURN;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        PERFORM schema_notifications.lose(tag, 'what it changed is not known', sqlerrm);
    END;

    -- Only the database's owner, or a superuser, can do without the log.
    IF NOT (schema_notifications.is_off('schema_notifications.log')
            AND pg_has_role(session_user, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER')) THEN
        BEGIN
            INSERT INTO schema_notifications.log AS l (tag, objects) VALUES (tag, coalesce(objects, '[]'))
            RETURNING l.id, l.changed_at INTO log_id, changed_at;
        EXCEPTION WHEN OTHERS THEN
            PERFORM schema_notifications.lose(tag, 'it was not logged', sqlerrm);
        END;
    END IF;

    IF NOT schema_notifications.is_off('schema_notifications.notify') THEN
        BEGIN
            IF pg_notification_queue_usage() > 0.9 THEN
                RAISE EXCEPTION 'the notification queue is full, because a listener sits in a long transaction '
                                'that pg_stat_activity shows';
            END IF;
            payload := schema_notifications.payload(
                log_id, pg_current_xact_id(), changed_at,
                CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END, tag, objects);
            IF octet_length(payload) > 7999 THEN
                payload := schema_notifications.truncated(payload);
            END IF;
            PERFORM pg_notify('schema_changed', payload);
        EXCEPTION WHEN OTHERS THEN
            PERFORM schema_notifications.lose(tag, 'it was not announced', sqlerrm);
        END;
    END IF;

    IF log_id % 512 = 0 THEN
        PERFORM schema_notifications.prune(log_id);
    END IF;
END
$$;

-- Warns that a step failed, and counts it.
CREATE FUNCTION schema_notifications.lose(tag text, step text, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE WARNING 'schema change "%" in database "%" succeeded, but %: %', tag, current_database(), step, reason
        USING HINT = 'SELECT * FROM schema_notifications.status() tells how the notifications are.';
    PERFORM nextval('schema_notifications.losses');
END
$$;

-- Prepares for what an extension's command drops: the steps of its script are not announced, nor are its members.
CREATE FUNCTION schema_notifications.prepare_extension_command() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM schema_notifications.leave(tg_tag, CASE WHEN tg_tag = 'DROP EXTENSION' THEN (
        WITH members AS (SELECT classid, objid, objsubid FROM pg_depend WHERE deptype = 'e'),
             parts AS (SELECT d.classid, d.objid, d.objsubid     -- such as the array type of a type
                         FROM pg_depend AS d JOIN members AS m ON (d.refclassid, d.refobjid) = (m.classid, m.objid)
                        WHERE d.deptype IN ('i', 'a'))
        SELECT jsonb_agg(jsonb_build_object('action', 'dropped', 'kind', o.type, 'schema', o.schema, 'identity', o.identity))
          FROM (TABLE members UNION TABLE parts) AS m, pg_identify_object(classid, objid, objsubid) AS o) END);
EXCEPTION WHEN OTHERS THEN
    PERFORM schema_notifications.lose(tg_tag, 'what it drops will be announced object by object', sqlerrm);
END
$$;

-- Retention as configured with ALTER DATABASE ... SET or ALTER ROLE ALL SET. The session's own value is not asked: any
-- user could set it, and so prune the log.
CREATE FUNCTION schema_notifications.configured(setting_name text, default_value text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT split_part(entry, '=', 2)
          FROM pg_db_role_setting, unnest(setconfig) AS entry
         WHERE setrole = 0
           AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
           AND starts_with(entry, 'schema_notifications.' || setting_name || '=')
         ORDER BY setdatabase DESC LIMIT 1), default_value)
$$;

-- Removes from the log what retention no longer wants: the oldest transactions, up to the first that is to be kept, some
-- thousand rows at most. Never waits: one pruner at a time holds the state row, others skip. What a running transaction
-- precedes is kept, so no cursor made from now on is older than the horizon.
CREATE FUNCTION schema_notifications.prune(newest_id bigint) RETURNS void
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

------------------------------------------------------------------------------------------------------------------------
-- 4. The event triggers
------------------------------------------------------------------------------------------------------------------------

CREATE EVENT TRIGGER schema_notifications_ddl_command_end ON ddl_command_end
    EXECUTE FUNCTION schema_notifications.notify_schema_change();
CREATE EVENT TRIGGER schema_notifications_sql_drop ON sql_drop
    EXECUTE FUNCTION schema_notifications.notify_schema_change();
CREATE EVENT TRIGGER schema_notifications_extension_start ON ddl_command_start
    WHEN TAG IN ('CREATE EXTENSION', 'ALTER EXTENSION', 'DROP EXTENSION')
    EXECUTE FUNCTION schema_notifications.prepare_extension_command();

-- Also under session_replication_role = replica: a subscriber's schema changes are changes.
ALTER EVENT TRIGGER schema_notifications_ddl_command_end ENABLE ALWAYS;
ALTER EVENT TRIGGER schema_notifications_sql_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER schema_notifications_extension_start ENABLE ALWAYS;

------------------------------------------------------------------------------------------------------------------------
-- 5. What a reader missed
------------------------------------------------------------------------------------------------------------------------

-- A cursor says which transactions a reader has seen, and where:
-- "1-<system identifier>-<database oid>-<log table oid>-<timeline>-<xmin>.<xmax>.<xip>_<xip>". The log's oid is of this
-- installation of the extension; the last part is a pg_snapshot.
CREATE FUNCTION schema_notifications.make_cursor(seen pg_snapshot) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('1-%s-%s-%s-%s-%s',
                  (SELECT system_identifier FROM pg_control_system()),
                  (SELECT oid FROM pg_database WHERE datname = current_database()),
                  'schema_notifications.log'::regclass::oid,
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
RETURNS TABLE (kind text, "cursor" text, id bigint, txid xid8, changed_at timestamptz, user_name name, tag text,
               objects jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    visible   pg_snapshot;                     -- whose changes this query sees
    seen      pg_snapshot;                     -- whose changes the reader has seen
    running   xid8[];                          -- those that ran when the cursor was made
    seen_last xid8;                            -- the last transaction of this answer, when max_rows ends it
    fresh     text;
    reason    text;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'schema_notifications.changes_since() works on the primary only'
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'A standby does not know which transactions are running. Connect to the primary.';
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

    IF since !~ '^1(-[0-9]+){5}[.][0-9]+[.][0-9_]*$' THEN
        reason := 'this is not a cursor of this version';
    ELSIF split_part(since, '-', 2) <> split_part(fresh, '-', 2) THEN
        reason := 'the cursor is from another cluster';
    ELSIF split_part(since, '-', 3) <> split_part(fresh, '-', 3) THEN
        reason := 'the cursor is from another database';
    ELSIF split_part(since, '-', 4) <> split_part(fresh, '-', 4) THEN
        reason := 'the cursor is from another installation of the extension';
    ELSIF split_part(since, '-', 5) <> split_part(fresh, '-', 5) THEN
        reason := 'the cursor is from another timeline: the cluster was restored or failed over';
    ELSE
        BEGIN
            seen := translate(split_part(since, '-', 6), '._', ':,')::pg_snapshot;
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
    running := ARRAY(SELECT pg_snapshot_xip(seen));
    IF max_rows IS NOT NULL THEN
        SELECT unseen.txid INTO seen_last
          FROM (SELECT l.txid FROM schema_notifications.log AS l WHERE l.txid >= pg_snapshot_xmax(seen)
                UNION ALL
                SELECT l.txid FROM schema_notifications.log AS l WHERE l.txid = ANY (running)) AS unseen
         WHERE pg_visible_in_snapshot(unseen.txid, visible)
         ORDER BY unseen.txid OFFSET greatest(max_rows, 1) - 1 LIMIT 1;
    END IF;
    RETURN QUERY
        SELECT 'change', NULL, unseen.*
          FROM (SELECT l.* FROM schema_notifications.log AS l WHERE l.txid >= pg_snapshot_xmax(seen)
                UNION ALL
                SELECT l.* FROM schema_notifications.log AS l WHERE l.txid = ANY (running)) AS unseen
         WHERE pg_visible_in_snapshot(unseen.txid, visible) AND (seen_last IS NULL OR unseen.txid <= seen_last)
         ORDER BY unseen.id;

    -- Cut short: seen are now the former ones, and all up to seen_last but for those still running.
    IF seen_last IS NOT NULL THEN
        SELECT schema_notifications.make_cursor(
                   format('%s:%s:%s', coalesce(min(xip), xmax), xmax, string_agg(xip::text, ',' ORDER BY xip))::pg_snapshot)
          INTO fresh
          FROM (SELECT greatest(pg_snapshot_xmax(seen), (seen_last::text::numeric + 1)::text::xid8)) AS _(xmax)
          LEFT JOIN (SELECT pg_snapshot_xip(visible)
                     UNION SELECT xip FROM unnest(running) AS xip WHERE xip > seen_last) AS unseen(xip) ON xip < xmax
         GROUP BY xmax;
    END IF;
    RETURN QUERY SELECT 'cursor', fresh, NULL::bigint, NULL::xid8, NULL::timestamptz, NULL::name, NULL, NULL::jsonb;
END
$$;

------------------------------------------------------------------------------------------------------------------------
-- 6. Is all well?
------------------------------------------------------------------------------------------------------------------------

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

------------------------------------------------------------------------------------------------------------------------
-- 7. Who may do what
------------------------------------------------------------------------------------------------------------------------

-- Nobody else may do anything. A reader is given what it needs by name:
--   GRANT USAGE ON SCHEMA schema_notifications TO reader;
--   GRANT EXECUTE ON FUNCTION schema_notifications.changes_since TO reader;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA schema_notifications FROM PUBLIC;
GRANT USAGE ON SCHEMA schema_notifications TO pg_database_owner, pg_monitor;
GRANT SELECT ON schema_notifications.log TO pg_database_owner;
GRANT EXECUTE ON FUNCTION schema_notifications.changes_since(text, integer) TO pg_database_owner;
GRANT EXECUTE ON FUNCTION schema_notifications.status() TO pg_database_owner, pg_monitor;

INSERT INTO schema_notifications.state VALUES ('0', schema_notifications.fingerprint());
