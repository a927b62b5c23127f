\echo Use "CREATE EXTENSION schema_notifications" to load this file. \quit

-- Schema-change notifications: every DDL command writes one row to a log and sends one notice on the channel
-- schema_changed, in the transaction of the command. Reads top to bottom as a change travels:
--   1. what is kept                                  2. the trigger functions
--   3. the event triggers                            4. retention
--   5. changes_since(): what a reader missed         6. status(): is all well?         7. who may do what
--
-- Three rules hold throughout. A schema change and its record commit together, or neither does: nothing is caught here, so
-- what stops the record stops the command. The code runs as the superuser who installed it, so no name in it is ever
-- looked up in a schema of the user's choice, and nothing that a session can set decides what is recorded. It is on the
-- path of every DDL command, so each thing that is done there has been measured (docs/benchmarks.md).

------------------------------------------------------------------------------------------------------------------------
-- 1. What is kept
------------------------------------------------------------------------------------------------------------------------

CREATE SCHEMA schema_notifications;
COMMENT ON SCHEMA schema_notifications IS 'Schema-change notifications: not the application''s, see schema_notifications.status()';

-- One row per DDL command, written by the transaction of the command: rolled back with it, committed with it.
CREATE TABLE schema_notifications.log (
    -- The position in the write-ahead log before the row was written: it grows with each command of a transaction. (A
    -- sequence would change the session's lastval().) Only (txid, id) is unique; commit order may differ from both.
    id          bigint      NOT NULL DEFAULT (pg_current_wal_insert_lsn() - '0/0')::bigint,
    txid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who ran it: the session's user, or the role it has SET. (current_user is the owner of the trigger function.)
    user_name   name        NOT NULL DEFAULT coalesce(nullif(current_setting('role'), 'none')::name, session_user),
    tag         text        NOT NULL,
    objects     json        NOT NULL,     -- [{"action": ..., "kind": ..., "schema": ..., "identity": ...}, ...]
    -- True from one event of a command to its next: see record().
    unfinished  boolean     NOT NULL DEFAULT false,
    -- The one index: changes_since() and retention read by transaction.
    PRIMARY KEY (txid, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE schema_notifications.log IS 'One row per DDL command, kept by the extension schema_notifications: read it with changes_since()';

-- One row. All log rows with txid <= horizon have been pruned.
CREATE TABLE schema_notifications.state (
    is_single    boolean PRIMARY KEY DEFAULT true CHECK (is_single),
    horizon      xid8   NOT NULL DEFAULT '0',
    pruned       bigint NOT NULL DEFAULT 0,       -- digest of the newest row that was pruned
    counted      bigint NOT NULL DEFAULT 0,       -- rows in the log with horizon < txid < counted_below
    counted_below xid8  NOT NULL DEFAULT '0',
    fingerprint  text   NOT NULL                  -- of this extension's functions, as installed
);
COMMENT ON TABLE schema_notifications.state IS 'What the extension schema_notifications keeps beside its log';

-- A subscription to another server's tables brings no rows of that server's feed in here, neither as they change nor in
-- its initial copy: both run with session_replication_role = replica, which these triggers are for.
CREATE FUNCTION schema_notifications.keep_out() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT backend_type LIKE 'logical replication %' FROM pg_stat_get_activity(pg_backend_pid())) THEN
        RETURN NULL;
    ELSIF tg_op = 'DELETE' THEN
        RETURN OLD;
    ELSIF tg_op = 'INSERT' AND tg_table_name = 'log' THEN       -- another's worker, such as pglogical's
        RETURN CASE WHEN NEW.txid = pg_current_xact_id() THEN NEW END;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_out BEFORE INSERT OR UPDATE OR DELETE ON schema_notifications.log
    FOR EACH ROW EXECUTE FUNCTION schema_notifications.keep_out();
CREATE TRIGGER keep_out BEFORE INSERT OR UPDATE OR DELETE ON schema_notifications.state
    FOR EACH ROW EXECUTE FUNCTION schema_notifications.keep_out();
ALTER TABLE schema_notifications.log ENABLE REPLICA TRIGGER keep_out;
ALTER TABLE schema_notifications.state ENABLE REPLICA TRIGGER keep_out;

-- After TRUNCATE the log holds nothing that any cursor still lacks: readers get a reset, not a gap.
CREATE FUNCTION schema_notifications.forget() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE schema_notifications.state
       SET horizon = pg_current_xact_id(), pruned = 0, counted_below = pg_current_xact_id(), counted = 0;
    RETURN NULL;
END
$$;
CREATE TRIGGER forget AFTER TRUNCATE ON schema_notifications.log EXECUTE FUNCTION schema_notifications.forget();
ALTER TABLE schema_notifications.log ENABLE ALWAYS TRIGGER forget;

------------------------------------------------------------------------------------------------------------------------
-- 2. The trigger functions
------------------------------------------------------------------------------------------------------------------------

-- Records and announces the DDL command that has just run: at ddl_command_end what it created and altered, and before
-- that, at sql_drop, what was dropped (notify_schema_drop()). PostgreSQL tells each only to its own event.
--
-- These two are the usual case; what is unusual in any way goes on to record(). They have no SET search_path, which would
-- cost more than anything else here: PostgreSQL would look up the user's path anew after each call. Instead every name is
-- qualified, operators too, or was resolved when this file ran (the log's defaults). IN, NULLIF, CASE x WHEN and IS
-- DISTINCT FROM look an operator up in the user's path, and are not used. tests/sql/test_attacks.py shadows every
-- function, operator and type there is. No view is on the way: any user may SET restrict_nonsystem_relation_kind.
--
-- Left out are temporary objects and the members of an extension whose script runs.
CREATE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    changed  pg_catalog.json;
    list     pg_catalog.text;     -- the same
    due      pg_catalog.bool;     -- is pruning
BEGIN
    changed := pg_catalog.array_to_json(ARRAY(
        SELECT o FROM (
            SELECT CASE WHEN pg_catalog.starts_with(command_tag, 'CREATE ') THEN 'created' ELSE 'altered' END AS action,
                   object_type AS kind, schema_name AS schema, object_identity AS identity
              FROM pg_catalog.pg_event_trigger_ddl_commands()
             WHERE NOT in_extension AND coalesce(schema_name, '') OPERATOR(pg_catalog.<>) 'pg_temp') AS o));
    list := changed;

    IF list OPERATOR(pg_catalog.=) '[]' THEN
        IF coalesce(pg_catalog.current_setting('schema_notifications.unfinished', true), '') OPERATOR(pg_catalog.=) '' THEN
            RETURN;     -- nothing has changed
        END IF;
    END IF;
    -- Was it the extension itself? (record() sees to triggers and the like on its tables.)
    IF pg_catalog.strpos(list, '"schema":"schema_notifications"') OPERATOR(pg_catalog.>) 0
       OR tg_tag OPERATOR(pg_catalog.=) ANY ('{ALTER TABLE, ALTER FUNCTION, ALTER ROUTINE, ALTER SCHEMA}'::pg_catalog.text[]) THEN
        IF list OPERATOR(pg_catalog.<>) '[]'
           AND (pg_catalog.strpos(list, '"schema":"schema_notifications"') OPERATOR(pg_catalog.>) 0
                AND tg_tag OPERATOR(pg_catalog.<>) ALL ('{COMMENT, REINDEX, SECURITY LABEL}'::pg_catalog.text[])
                OR pg_catalog.to_regclass('schema_notifications.log') IS NULL
                OR pg_catalog.to_regclass('schema_notifications.state') IS NULL
                OR pg_catalog.to_regproc('schema_notifications.record') IS NULL
                OR pg_catalog.to_regproc('schema_notifications.prune') IS NULL
                OR pg_catalog.to_regproc('schema_notifications.objects') IS NULL) THEN
            RAISE EXCEPTION '% would change the extension schema_notifications of database "%", which then could not record '
                            'what changes', tg_tag, pg_catalog.current_database()
                USING ERRCODE = 'dependent_objects_still_exist', HINT = 'To remove it, run DROP EXTENSION schema_notifications; to do '
                      'without it for a while, ALTER EVENT TRIGGER ... DISABLE for its event triggers.';
        END IF;
    END IF;

    IF pg_catalog.concat(pg_catalog.current_setting('schema_notifications.unfinished', true),
                         pg_catalog.current_setting('schema_notifications.notify', true),
                         pg_catalog.current_setting('schema_notifications.log', true)) OPERATOR(pg_catalog.<>) ''
       OR pg_catalog.octet_length(list) OPERATOR(pg_catalog.>) 7000
       OR pg_catalog.strpos(list, '"schema":null') OPERATOR(pg_catalog.>) 0
       OR tg_tag OPERATOR(pg_catalog.=) ANY ('{SELECT INTO, REINDEX}'::pg_catalog.text[])
       OR pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.>) '0.9' THEN
        PERFORM schema_notifications.record(tg_event, tg_tag, list);
        RETURN;
    END IF;

    -- The rest of the notice is shorter than 1,000 bytes. (To notify here is faster than to PERFORM it.)
    INSERT INTO schema_notifications.log AS l (tag, objects) VALUES (tg_tag, changed)
    RETURNING pg_catalog.hashint8(l.id) OPERATOR(pg_catalog.>) 2130706432,      -- 1 in 256
              pg_catalog.pg_notify('schema_changed', pg_catalog.format(
                  '{"type":"ddl_command_end","tag":"%s","timestamp":"%s+00","id":%s,"database":%s,"user":%s,"txid":"%s","objects":%s}',
                  l.tag, pg_catalog.to_char(l.changed_at AT TIME ZONE 'UTC'::pg_catalog.text, 'YYYY-MM-DD HH24:MI:SS.MS'::pg_catalog.text), l.id,
                  pg_catalog.to_json(pg_catalog.current_database()), pg_catalog.to_json(l.user_name), l.txid, l.objects))
         INTO due, list;
    IF due THEN
        PERFORM schema_notifications.prune(10000);
    END IF;
END
$$;

-- The same of what was dropped: what the command named (original) and what depended on that (normal), without the inner
-- parts of these. A partition is such a part, and yet a table.
-- What it has in common with the other is written out again: one function for both, or a call, would cost each command more.
CREATE FUNCTION schema_notifications.notify_schema_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    changed  pg_catalog.json;
    list     pg_catalog.text;
    due      pg_catalog.bool;
BEGIN
    changed := pg_catalog.array_to_json(ARRAY(
        SELECT o FROM (
            SELECT 'dropped' AS action, object_type AS kind, schema_name AS schema, object_identity AS identity
              FROM pg_catalog.pg_event_trigger_dropped_objects()
             WHERE (original OR normal OR object_type OPERATOR(pg_catalog.=) ANY ('{table, foreign table}'::pg_catalog.text[]))
               AND NOT is_temporary) AS o));
    list := changed;

    IF list OPERATOR(pg_catalog.=) '[]' THEN
        RETURN;     -- temporary, all of it
    END IF;
    IF pg_catalog.concat(pg_catalog.current_setting('schema_notifications.unfinished', true),
                         pg_catalog.current_setting('schema_notifications.notify', true),
                         pg_catalog.current_setting('schema_notifications.log', true)) OPERATOR(pg_catalog.<>) ''
       OR pg_catalog.octet_length(list) OPERATOR(pg_catalog.>) 7000
       OR pg_catalog.strpos(list, '"schema":null') OPERATOR(pg_catalog.>) 0
       OR pg_catalog.strpos(list, '"schema":"schema_notifications"') OPERATOR(pg_catalog.>) 0
       OR NOT pg_catalog.starts_with(tg_tag, 'DROP ') OR tg_tag OPERATOR(pg_catalog.=) 'DROP OWNED'
       OR pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.>) '0.9' THEN
        PERFORM schema_notifications.record(tg_event, tg_tag, list);
        RETURN;
    END IF;

    INSERT INTO schema_notifications.log AS l (tag, objects) VALUES (tg_tag, changed)
    RETURNING pg_catalog.hashint8(l.id) OPERATOR(pg_catalog.>) 2130706432,
              pg_catalog.pg_notify('schema_changed', pg_catalog.format(
                  '{"type":"ddl_command_end","tag":"%s","timestamp":"%s+00","id":%s,"database":%s,"user":%s,"txid":"%s","objects":%s}',
                  l.tag, pg_catalog.to_char(l.changed_at AT TIME ZONE 'UTC'::pg_catalog.text, 'YYYY-MM-DD HH24:MI:SS.MS'::pg_catalog.text), l.id,
                  pg_catalog.to_json(pg_catalog.current_database()), pg_catalog.to_json(l.user_name), l.txid, l.objects))
         INTO due, list;
    IF due THEN
        PERFORM schema_notifications.prune(10000);
    END IF;
END
$$;

-- What has changed, listed with more care than above, for record(): a rule, trigger or policy (in PostgreSQL 14 a default too)
-- has the schema of its table; a view's rule is no object of its own; what GRANT tells in capitals is in small letters; and of
-- many objects there are the first 5,000, and after them {"truncated":true,"total":...} says how many.
CREATE FUNCTION schema_notifications.objects(event text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    object  record;
    list    text[];
    total   bigint := 0;
BEGIN
    IF event = 'sql_drop' THEN
        FOR object IN
            SELECT 'dropped' AS action, object_type AS kind,
                   coalesce(schema_name, CASE WHEN classid IN (2604, 2618, 2620, 3256) THEN address_names[1] END) AS schema,
                   object_identity AS identity
              FROM pg_event_trigger_dropped_objects()
             WHERE (original OR normal OR object_type IN ('table', 'foreign table')) AND NOT is_temporary
               AND (classid <> 2618 OR address_names[3] <> '_RETURN')
        LOOP
            CONTINUE WHEN object.schema = 'pg_temp';
            total := total + 1;
            IF total <= 5000 THEN
                list[total] := to_json(object);
            END IF;
        END LOOP;
    ELSE
        FOR object IN
            SELECT CASE WHEN starts_with(command_tag, 'CREATE ') OR command_tag = 'SELECT INTO' THEN 'created' ELSE 'altered' END AS action,
                   lower(object_type) AS kind,
                   coalesce(schema_name, CASE WHEN classid IN (2618, 2620, 3256) THEN
                                             (pg_identify_object_as_address(classid, objid, 0)).object_names[1] END) AS schema,
                   object_identity AS identity
              FROM pg_event_trigger_ddl_commands()
             WHERE NOT in_extension
        LOOP
            CONTINUE WHEN object.schema = 'pg_temp';
            total := total + 1;
            IF total <= 5000 THEN
                list[total] := to_json(object);
            END IF;
        END LOOP;
    END IF;
    RETURN concat(array_to_string(list, ','), CASE WHEN total > 5000 THEN format(',{"truncated":true,"total":%s}', total) END);
END
$$;

-- Whether a setting, by default on, was set to a word for off.
CREATE FUNCTION schema_notifications.is_off(setting_name text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(lower(current_setting(setting_name, true)), '') IN ('off', 'false', 'no', '0')
$$;

-- Only the database's owner, or a superuser, can do without the log.
CREATE FUNCTION schema_notifications.does_without_log() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT schema_notifications.is_off('schema_notifications.log')
           AND pg_has_role(session_user, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER')
$$;

-- The command that is at one of its events now, so far as ddl_command_end can tell it from another: what it has done.
CREATE FUNCTION schema_notifications.this_command() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT hashtextextended(coalesce(string_agg(concat_ws(' ', classid, objid, objsubid, command_tag, object_type), ','), ''), 0)::text
      FROM pg_event_trigger_ddl_commands()
$$;

-- What is unusual: a setting, a queue that is nearly full, DDL on the extension itself, objects without a schema of their own,
-- long lists; and commands of which one event does not know enough. For these a row stands in the log, unfinished, from one
-- event to the next:
--   * ALTER (and REFRESH, DROP OWNED ...) may drop things too: sql_drop writes them down, ddl_command_end adds the rest;
--   * CREATE and ALTER EXTENSION: ddl_command_start writes a row, by which sql_drop sees that a script runs;
--   * DROP EXTENSION: ddl_command_start writes the extension's members down, which are gone at sql_drop.
-- The setting schema_notifications.unfinished says where these rows are, the innermost first: "(block,offset)/command ...".
-- It is a hint: any user can write it, but none can make an unfinished row, nor is one left when a command has ended.
-- (A setting takes part in rollbacks. To look for the row instead would, under SERIALIZABLE, stand in others' way.)
CREATE FUNCTION schema_notifications.record(event text, tag text, list text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    hints       text := coalesce(current_setting('schema_notifications.unfinished', true), '');
    hint        text;
    there       text;
    place       tid;
    standing    schema_notifications.log;        -- an unfinished row
    is_own      boolean := false;                -- of this command
    in_script   boolean := false;                -- of an extension
    is_ours     boolean;                         -- something in the extension's own schema
    no_log      boolean := coalesce(current_setting('schema_notifications.log', true), '') <> '' AND schema_notifications.does_without_log()
                           OR current_setting('transaction_read_only') = 'on';
    change      schema_notifications.log;
    notice      text;
BEGIN
    is_ours := strpos(list, '"schema":"schema_notifications"') > 0;
    list := CASE WHEN octet_length(list) > 7000 OR strpos(list, '"schema":null') > 0 OR tag = 'SELECT INTO' THEN schema_notifications.objects(event)
                 ELSE btrim(list, '[]') END;
    is_ours := is_ours OR strpos(list, '"schema":"schema_notifications"') > 0;
    IF tag IN ('GRANT', 'REVOKE') AND pg_my_temp_schema() <> 0 AND list ~ '"kind":"(table|sequence)"'
       AND schema_notifications.has_changed_temporary_ones_only() THEN
        list := '';
    END IF;
    FOREACH hint IN ARRAY string_to_array(hints, ' ') LOOP
        there := split_part(hint, '/', 1);
        CONTINUE WHEN there NOT LIKE '(%)' OR translate(there, '0123456789', '') <> '(,)' OR strpos(there, ',') NOT BETWEEN 3 AND 11
                      OR length(there) - strpos(there, ',') NOT BETWEEN 2 AND 5;
        SELECT * INTO standing FROM schema_notifications.log AS l
         WHERE l.ctid = there::tid AND l.txid = pg_current_xact_id_if_assigned() AND l.unfinished;
        CONTINUE WHEN NOT FOUND;
        IF place IS NULL THEN       -- the innermost
            place := there::tid;
            change := standing;
            is_own := change.tag = tag AND split_part(hint, '/', 2) IN ('0', schema_notifications.this_command());
        END IF;
        in_script := in_script OR standing.tag IN ('CREATE EXTENSION', 'ALTER EXTENSION');
    END LOOP;

    IF event = 'sql_drop' AND in_script THEN
        RETURN;
    ELSIF is_ours AND tag NOT IN ('COMMENT', 'REINDEX', 'SECURITY LABEL', 'DROP EXTENSION') THEN
        RAISE EXCEPTION '% would change the extension schema_notifications of database "%", which then could not record '
                        'what changes', tag, current_database()
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'To remove it, run DROP EXTENSION schema_notifications; to do '
                  'without it for a while, ALTER EVENT TRIGGER ... DISABLE for its event triggers.';
    END IF;
    IF event = 'sql_drop' THEN
        IF tag NOT LIKE 'DROP %' OR tag = 'DROP OWNED' THEN
            PERFORM schema_notifications.leave(tag, list, schema_notifications.this_command());
            RETURN;
        ELSIF is_own THEN           -- DROP EXTENSION
            list := coalesce((
                SELECT string_agg(object::text, ',') FROM json_array_elements(('[' || list || ']')::json) AS object
                 WHERE (object ->> 'kind', object ->> 'identity') NOT IN (
                           SELECT member ->> 'kind', member ->> 'identity' FROM json_array_elements(change.objects) AS member)
                       IS NOT FALSE), '');
        END IF;
    ELSIF is_own AND tag <> 'DROP EXTENSION' THEN
        list := concat_ws(',', nullif(btrim(change.objects::text, '[]'), ''), nullif(list, ''));
    END IF;

    IF is_own THEN
        hints := substr(hints, strpos(hints, place::text)) || ' ';
        PERFORM set_config('schema_notifications.unfinished', btrim(substr(hints, strpos(hints, ' '))), true);
        IF list = '' OR no_log THEN
            DELETE FROM schema_notifications.log AS l WHERE l.ctid = place;
        ELSE
            UPDATE schema_notifications.log AS l
               SET objects = ('[' || list || ']')::json, changed_at = clock_timestamp(), unfinished = false
             WHERE l.ctid = place RETURNING l.* INTO change;
        END IF;
    ELSIF list <> '' AND NOT no_log THEN
        INSERT INTO schema_notifications.log AS l (tag, objects) VALUES (tag, ('[' || list || ']')::json) RETURNING l.* INTO change;
    END IF;
    IF list = '' THEN
        RETURN;
    END IF;

    IF coalesce(current_setting('schema_notifications.notify', true), '') = '' OR NOT schema_notifications.is_off('schema_notifications.notify') THEN
        IF pg_notification_queue_usage() > 0.9 THEN
            RAISE WARNING 'schema change "%" in database "%" was not announced, only logged: the notification queue is nearly full',
                          tag, current_database()
                USING HINT = 'End the long transaction of the listener that holds it: pg_stat_activity shows it.';
        ELSE
            notice := format('{"type":"ddl_command_end","tag":"%s","timestamp":"%s+00"%s,"database":%s,"user":%s,"txid":"%s","objects":[%s]}',
                tag, to_char(CASE WHEN no_log THEN clock_timestamp() ELSE change.changed_at END AT TIME ZONE 'UTC'::pg_catalog.text, 'YYYY-MM-DD HH24:MI:SS.MS'::pg_catalog.text),
                CASE WHEN NOT no_log THEN ',"id":' || change.id END, to_json(current_database()),
                to_json(CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END),
                pg_current_xact_id(), list);
            IF octet_length(notice) > 7999 THEN     -- without its objects; a quote within a string is escaped, so this is the key
                notice := split_part(notice, ',"objects":', 1) || ',"truncated":true}';
            END IF;
            PERFORM pg_notify('schema_changed', notice);
        END IF;
    END IF;
    IF hashint8(change.id) > 2130706432 AND NOT no_log THEN
        PERFORM schema_notifications.prune(10000);
    END IF;
END
$$;

-- Whether all tables and sequences that this transaction has changed are temporary. (PostgreSQL tells of a GRANT only what
-- kind of object it was on.) What others have committed meanwhile counts too, so that in doubt the GRANT is told.
CREATE FUNCTION schema_notifications.has_changed_temporary_ones_only() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH changed AS (
        SELECT relpersistence = 't' AS is_temporary FROM pg_class WHERE age(xmin) <= age(pg_current_xact_id()::xid)
        UNION ALL
        SELECT relpersistence = 't' FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid
         WHERE age(a.xmin) <= age(pg_current_xact_id()::xid))
    SELECT coalesce(bool_and(is_temporary), false) FROM changed
$$;

-- Leaves a row unfinished for the next event of this command ("0": whatever that has done).
CREATE FUNCTION schema_notifications.leave(tag text, list text, command text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place  tid;
BEGIN
    INSERT INTO schema_notifications.log AS l (tag, objects, unfinished)
    VALUES (leave.tag, ('[' || list || ']')::json, true) RETURNING l.ctid INTO place;
    PERFORM set_config('schema_notifications.unfinished',
                       concat_ws(' ', place || '/' || command, current_setting('schema_notifications.unfinished', true)), true);
END
$$;

-- At ddl_command_start of an extension's command.
CREATE FUNCTION schema_notifications.prepare_extension_command() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM schema_notifications.leave(tg_tag, CASE WHEN tg_tag <> 'DROP EXTENSION' THEN '' ELSE (
        WITH members AS (SELECT classid, objid, objsubid FROM pg_depend WHERE deptype = 'e'),
             parts AS (SELECT d.classid, d.objid, d.objsubid     -- such as the array type of a type
                         FROM pg_depend AS d JOIN members AS m ON (d.refclassid, d.refobjid) = (m.classid, m.objid)
                        WHERE d.deptype IN ('i', 'a'))
        SELECT coalesce(string_agg(format('{"kind": %s, "identity": %s}', to_json(o.type), to_json(o.identity)), ', '), '')
          FROM (TABLE members UNION TABLE parts) AS m, pg_identify_object(classid, objid, objsubid) AS o) END, '0');
END
$$;

------------------------------------------------------------------------------------------------------------------------
-- 3. The event triggers
------------------------------------------------------------------------------------------------------------------------

-- At the end of every command but DROP, of which sql_drop tells: to be called for nothing would cost a thirtieth of it all.
-- PostgreSQL from 19 on may have commands that are not known here, so there it is called for each.
DO $$
DECLARE
    kinds  text[] := '{ACCESS METHOD, AGGREGATE, CAST, COLLATION, CONSTRAINT, CONVERSION, DOMAIN, EXTENSION,
        FOREIGN DATA WRAPPER, FOREIGN TABLE, FUNCTION, INDEX, LANGUAGE, MATERIALIZED VIEW, OPERATOR,
        OPERATOR CLASS, OPERATOR FAMILY, POLICY, PROCEDURE, PUBLICATION, ROUTINE, RULE, SCHEMA, SEQUENCE,
        SERVER, STATISTICS, SUBSCRIPTION, TABLE, TEXT SEARCH CONFIGURATION, TEXT SEARCH DICTIONARY,
        TEXT SEARCH PARSER, TEXT SEARCH TEMPLATE, TRANSFORM, TRIGGER, TYPE, USER MAPPING, VIEW}';
    others text[] := '{ALTER DEFAULT PRIVILEGES, ALTER LARGE OBJECT, COMMENT, CREATE TABLE AS, DROP EXTENSION, DROP OWNED,
        GRANT, IMPORT FOREIGN SCHEMA, REFRESH MATERIALIZED VIEW, REINDEX, REVOKE, SECURITY LABEL,
        SELECT INTO}';
    version integer := current_setting('server_version_num')::integer / 10000;
BEGIN
    EXECUTE concat('CREATE EVENT TRIGGER schema_notifications_ddl_command_end ON ddl_command_end ', (
        SELECT format('WHEN TAG IN (%s)', string_agg(quote_literal(tag), ', '))
          FROM (SELECT verb || kind FROM unnest('{"CREATE ", "ALTER "}'::text[]) AS verb, unnest(kinds) AS kind
                UNION ALL SELECT unnest(others)) AS tags(tag)
         WHERE tag <> 'REINDEX' OR version >= 17
        HAVING version < 19), ' EXECUTE FUNCTION schema_notifications.notify_schema_change()');
END
$$;
CREATE EVENT TRIGGER schema_notifications_sql_drop ON sql_drop
    EXECUTE FUNCTION schema_notifications.notify_schema_drop();
CREATE EVENT TRIGGER schema_notifications_extension_start ON ddl_command_start
    WHEN TAG IN ('CREATE EXTENSION', 'ALTER EXTENSION', 'DROP EXTENSION')
    EXECUTE FUNCTION schema_notifications.prepare_extension_command();

-- Also under session_replication_role = replica: a subscriber's schema changes are changes.
ALTER EVENT TRIGGER schema_notifications_ddl_command_end ENABLE ALWAYS;
ALTER EVENT TRIGGER schema_notifications_sql_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER schema_notifications_extension_start ENABLE ALWAYS;

------------------------------------------------------------------------------------------------------------------------
-- 4. Retention
------------------------------------------------------------------------------------------------------------------------

-- Retention as configured with ALTER DATABASE ... SET or ALTER ROLE ALL SET. The session's own value is not asked: any
-- user could set it, and so prune the log.
CREATE FUNCTION schema_notifications.configured(setting_name text, default_value text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT substr(entry, strpos(entry, '=') + 1)
          FROM pg_db_role_setting, unnest(setconfig) AS entry
         WHERE setrole = 0
           AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
           AND starts_with(entry, 'schema_notifications.' || setting_name || '=')
         ORDER BY setdatabase DESC LIMIT 1), default_value)
$$;

-- A number of 56 bits that tells rows from any others that may come to have their transaction ids.
CREATE FUNCTION schema_notifications.digest(content text) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ('x' || encode(substr(sha256(content::bytea), 1, 7), 'hex'))::bit(56)::bigint
$$;

-- Removes from the log what retention no longer wants, and returns how many rows that were: the oldest transactions, up to
-- the first that is to be kept, `most` rows or a few more. Never waits: one pruner at a time holds the state row, others
-- skip. What a running transaction precedes is kept, so no cursor made from now on is older than the horizon. About one command
-- in 256 calls it.
CREATE FUNCTION schema_notifications.prune(most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '16MB'
AS $$
DECLARE
    age          text := schema_notifications.configured('retention_age', '30 days');
    rows         text := schema_notifications.configured('retention_rows', '100000');
    running      xid8 := pg_snapshot_xmin(pg_current_snapshot());
    kept         schema_notifications.state;
    last_pruned  xid8;
    removed      bigint := 0;
BEGIN
    -- With REPEATABLE READ and above, a row that another pruner has changed would be a serialization failure.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RETURN 0;
    END IF;
    IF age !~ '^(\d{1,6}:\d\d(:\d\d)?|( *\d{1,6} *(second|minute|hour|day|week|month|year|s|min|h|d)?s?,?)+) *$' OR rows !~ '^ *\d{1,15} *$' THEN
        RAISE WARNING 'the log of schema changes in database "%" was not pruned: schema_notifications.retention_age = "%" is to be a '
                      'time such as "30 days", schema_notifications.retention_rows = "%" a number', current_database(), age, rows;
        RETURN 0;
    END IF;
    SELECT * INTO kept FROM schema_notifications.state FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    kept.counted := kept.counted + (SELECT count(*) FROM schema_notifications.log AS l
                                     WHERE l.txid >= kept.counted_below AND l.txid > kept.horizon AND l.txid < running);
    -- Mostly there are not too many, and the oldest is not too old.
    IF kept.counted <= rows::bigint AND (SELECT l.txid >= running OR l.changed_at >= now() - age::interval
                                           FROM schema_notifications.log AS l WHERE l.txid > kept.horizon
                                          ORDER BY l.txid, l.id LIMIT 1) THEN
        UPDATE schema_notifications.state SET counted_below = running, counted = kept.counted;
        RETURN 0;
    END IF;
    SELECT j.txid INTO last_pruned
      FROM (SELECT txid, bool_and(number <= kept.counted - rows::bigint OR changed_at < now() - age::interval)
                         OVER (ORDER BY txid) AS is_unwanted
              FROM (SELECT txid, changed_at, row_number() OVER (ORDER BY txid) AS number
                      FROM schema_notifications.log
                     WHERE txid > kept.horizon AND txid < running
                     ORDER BY txid FETCH FIRST most ROWS WITH TIES) AS oldest) AS j
     WHERE is_unwanted ORDER BY j.txid DESC LIMIT 1;
    IF last_pruned IS NOT NULL THEN
        SELECT schema_notifications.digest(concat_ws(' ', id, txid, extract(epoch FROM changed_at))) INTO kept.pruned
          FROM schema_notifications.log WHERE txid = last_pruned ORDER BY id DESC LIMIT 1;
        DELETE FROM schema_notifications.log WHERE txid <= last_pruned;
        GET DIAGNOSTICS removed = ROW_COUNT;
        kept.horizon := last_pruned;
    END IF;
    UPDATE schema_notifications.state AS s
       SET horizon = kept.horizon, pruned = kept.pruned, counted_below = running, counted = kept.counted - removed;
    RETURN removed;
END
$$;

-- The same at once and without a limit, for a retention that was lowered and for databases that see little DDL.
CREATE FUNCTION schema_notifications.prune_now() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'schema_notifications.prune_now() works in READ COMMITTED only' USING ERRCODE = 'feature_not_supported';
    END IF;
    PERFORM FROM schema_notifications.state FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;       -- another prunes right now
    END IF;
    UPDATE schema_notifications.state SET counted_below = '0', counted = 0;
    RETURN schema_notifications.prune(2147483647);
END
$$;

------------------------------------------------------------------------------------------------------------------------
-- 5. What a reader missed
------------------------------------------------------------------------------------------------------------------------

-- Where each timeline that led to the present one began: (1, 0), (2, where 1 was left), ...
CREATE FUNCTION schema_notifications.timelines(OUT timeline integer, OUT began pg_lsn) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present  text := substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);
    entry    text[];
BEGIN
    began := '0/0';
    FOR entry IN SELECT regexp_matches(pg_read_file('pg_wal/' || present || '.history', 0, 1000000, true),
                                       '^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)', 'gn') LOOP
        timeline := entry[1];
        RETURN NEXT;
        began := entry[2];
    END LOOP;
    timeline := ('x' || present)::bit(32)::integer;
    RETURN NEXT;
END
$$;

-- A cursor says which transactions a reader has seen, and where:
-- "2-<system identifier>-<database oid>-<log table oid>-<timeline>.<began>-<position>-<newest>-<first>.<recent>-<xmin>.<xmax>.<xip>_<xip>"
-- The log's oid is of this installation of the extension; the last part is a pg_snapshot.
--
-- After a crash, PostgreSQL gives out again the ids of transactions that left no trace; a copy of the data that was put back
-- gives out again all that were used since. So no cursor reaches past the newest row that its snapshot shows (what is
-- committed is on disk, and ids up to there are taken), and it carries a digest of that row. Since a transaction that
-- committed late can be lost when a newer one was not, a second digest is of the 32 newest rows, from transaction <first>.
-- <position> is where the write-ahead log was: all that a cursor has seen lies before it. A standby that was promoted has
-- the same log up to where it left the former timeline.
CREATE FUNCTION schema_notifications.make_cursor(shown pg_snapshot) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    log  record := schema_notifications.digests(shown);
BEGIN
    SELECT format('%s:%s:%s', coalesce(min(xip::text::numeric), log.last + 1), log.last + 1, string_agg(xip::text, ',' ORDER BY xip))
      INTO shown FROM pg_snapshot_xip(shown) AS xip WHERE xip::text::numeric < log.last;
    RETURN (SELECT format('2-%s-%s-%s-%s.%s-%s-%s-%s.%s-%s',
                          (SELECT system_identifier FROM pg_control_system()),
                          (SELECT oid FROM pg_database WHERE datname = current_database()),
                          'schema_notifications.log'::regclass::oid,
                          timeline, began - '0/0', pg_current_wal_insert_lsn() - '0/0',
                          log.newest, log.first, log.recent, translate(shown::text, ':,', '._'))
              FROM schema_notifications.timelines() ORDER BY timeline DESC LIMIT 1);
END
$$;

-- Of what a snapshot shows of the log: the last transaction and a digest of its newest row, or, when there is none, those
-- that were pruned last; and of the 32 newest rows, the first's transaction and a digest of all.
CREATE FUNCTION schema_notifications.digests(
    shown pg_snapshot, OUT last numeric, OUT newest bigint, OUT first numeric, OUT recent bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept   schema_notifications.state;
    txids  numeric[];
    rows   text[];
BEGIN
    SELECT * INTO kept FROM schema_notifications.state;
    SELECT array_agg(l.txid::text::numeric ORDER BY l.txid, l.id),
           array_agg(concat_ws(' ', l.id, l.txid, extract(epoch FROM l.changed_at)) ORDER BY l.txid, l.id)
      INTO txids, rows
      FROM (SELECT * FROM schema_notifications.log
             WHERE txid > kept.horizon AND txid < pg_snapshot_xmax(shown) AND pg_visible_in_snapshot(txid, shown)
             ORDER BY txid DESC, id DESC LIMIT 32) AS l;
    last := coalesce(txids[cardinality(txids)], kept.horizon::text::numeric);
    newest := coalesce(schema_notifications.digest(rows[cardinality(rows)]), kept.pruned);
    first := coalesce(txids[1], 0);
    recent := schema_notifications.digest(coalesce(array_to_string(rows, ','), ''));
END
$$;

-- The committed changes that the reader who holds this cursor has not seen, ordered by transaction and id (kind = 'change'),
-- then one row of kind 'cursor' with the new cursor to keep. Or, when that cannot be told any more, a single row of kind
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
    visible    pg_snapshot;                    -- whose changes this query sees
    seen       pg_snapshot;                    -- whose changes the reader has seen
    running    xid8[];                         -- those that ran when the cursor was made
    seen_last  xid8;                           -- the last transaction of this answer, when max_rows ends it
    part       text[];
    fresh      text;
    reason     text;
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

    part := string_to_array(since, '-');
    IF since ~ '^2(-[0-9]+){3}-[0-9]+[.][0-9]+(-[0-9]+){2}-[0-9]+[.][0-9]+-[0-9]+[.][0-9]+[.][0-9_]*$' THEN
        seen := schema_notifications.snapshot(translate(part[9], '._', ':,'));
    END IF;
    IF seen IS NULL THEN
        reason := 'this is not a cursor of this version';
    ELSIF part[2] <> split_part(fresh, '-', 2) THEN
        reason := 'the cursor is from another cluster';
    ELSIF part[3] <> split_part(fresh, '-', 3) THEN
        reason := 'the cursor is from another database';
    ELSIF part[4] <> split_part(fresh, '-', 4) THEN
        reason := 'the cursor is from another installation of the extension';
    ELSE
        reason := (
            WITH way AS (SELECT t.timeline, t.began - '0/0' AS began, lead(t.began) OVER (ORDER BY t.timeline) - '0/0' AS left_at
                           FROM schema_notifications.timelines() AS t)
            SELECT CASE
                WHEN NOT EXISTS (SELECT FROM way WHERE format('%s.%s', way.timeline, way.began) = part[5]) THEN
                    'the cursor is from another timeline: the cluster was restored or failed over, and did not come this way'
                WHEN EXISTS (SELECT FROM way WHERE format('%s.%s', way.timeline, way.began) = part[5] AND way.left_at < part[6]::numeric) THEN
                    'the cursor is from another timeline: the cluster was restored or failed over to what it was before'
                WHEN pg_snapshot_xmax(seen) > pg_snapshot_xmax(visible) THEN
                    'the cursor is from the future: the cluster was restored from a copy'
                WHEN pg_snapshot_xmin(seen) <= state.horizon THEN
                    'the cursor is older than the log: retention has pruned what came after it'
                WHEN d.last + 1 <> pg_snapshot_xmax(seen)::text::numeric OR d.newest::text <> part[7]
                     OR split_part(part[8], '.', 1)::numeric > state.horizon::text::numeric
                        AND d.recent::text <> split_part(part[8], '.', 2) THEN
                    'the log no longer has what the cursor has seen: the cluster was restored from a copy, or lost it in a crash'
                END
              FROM schema_notifications.state, schema_notifications.digests(seen) AS d);
        -- (without the state there is neither)
        reason := CASE WHEN EXISTS (SELECT FROM schema_notifications.state) THEN reason ELSE 'the feed has lost its state' END;
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
        SELECT 'change', NULL, unseen.id, unseen.txid, unseen.changed_at, unseen.user_name, unseen.tag, unseen.objects::jsonb
          FROM (SELECT l.* FROM schema_notifications.log AS l WHERE l.txid >= pg_snapshot_xmax(seen)
                UNION ALL
                SELECT l.* FROM schema_notifications.log AS l WHERE l.txid = ANY (running)) AS unseen
         WHERE pg_visible_in_snapshot(unseen.txid, visible) AND (seen_last IS NULL OR unseen.txid <= seen_last)
         ORDER BY unseen.id, unseen.txid;

    -- Cut short: seen are now the former ones, and all up to seen_last but for those still running.
    IF seen_last IS NOT NULL THEN
        SELECT schema_notifications.make_cursor(
                   format('%s:%s:%s', coalesce(min(xip::text::numeric), xmax::text::numeric), xmax,
                          string_agg(xip::text, ',' ORDER BY xip))::pg_snapshot)
          INTO fresh
          FROM (SELECT greatest(pg_snapshot_xmax(seen), (seen_last::text::numeric + 1)::text::xid8)) AS _(xmax)
          LEFT JOIN (SELECT pg_snapshot_xip(visible)
                     UNION SELECT xip FROM unnest(running) AS xip WHERE xip > seen_last) AS unseen(xip) ON xip < xmax
         GROUP BY xmax;
    END IF;
    RETURN QUERY SELECT 'cursor', fresh, NULL::bigint, NULL::xid8, NULL::timestamptz, NULL::name, NULL, NULL::jsonb;
END
$$;

-- A text as snapshot; NULL if it is none.
CREATE FUNCTION schema_notifications.snapshot(text text) RETURNS pg_snapshot
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN text::pg_snapshot;
EXCEPTION WHEN OTHERS THEN      -- this is not on the path of any DDL
    RETURN NULL;
END
$$;

------------------------------------------------------------------------------------------------------------------------
-- 6. Is all well?
------------------------------------------------------------------------------------------------------------------------

-- A digest of this extension's functions and of the triggers of its tables, to notice when one was altered.
CREATE FUNCTION schema_notifications.fingerprint() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sum(hashtextextended(part, 0))::text      -- without a sort, which could be in want of memory
      FROM (SELECT concat_ws('|', proname, prosrc, prosecdef, proconfig, provolatile) AS part
              FROM pg_proc WHERE pronamespace = 'schema_notifications'::regnamespace
            UNION ALL
            SELECT concat_ws('|', tgrelid::regclass, tgname, tgfoid::regproc, tgtype, tgenabled)
              FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = 'schema_notifications'::regnamespace
            UNION ALL
            SELECT concat_ws('|', attrelid::regclass, attname, attnum, atttypid::regtype, attnotnull)
              FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
             WHERE relnamespace = 'schema_notifications'::regnamespace AND relkind = 'r' AND attnum > 0) AS parts
$$;

-- One row on the health of the feed in this database. healthy is false when something needs a hand; problem says what
-- it is and what to do. advice is on what may become a problem elsewhere.
CREATE FUNCTION schema_notifications.status(
    OUT version_installed text, OUT version_available text, OUT triggers_enabled boolean, OUT function_unaltered boolean,
    OUT last_change timestamptz, OUT log_rows bigint, OUT log_bytes bigint,
    OUT queue_usage double precision, OUT healthy boolean, OUT problem text, OUT advice text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    is_credible boolean;
BEGIN
    SELECT extversion INTO version_installed FROM pg_extension WHERE extname = 'schema_notifications';
    SELECT default_version INTO version_available FROM pg_available_extensions WHERE name = 'schema_notifications';
    SELECT count(*) = 3 AND coalesce(current_setting('event_triggers', true), 'on') = 'on' INTO triggers_enabled
      FROM pg_event_trigger
     WHERE evtenabled = 'A' AND (evtname <> 'schema_notifications_ddl_command_end' OR evttags IS NULL OR current_setting('server_version_num')::integer < 190000)
       AND (evtname, evtevent, evtfoid::regproc::text) IN (
               ('schema_notifications_ddl_command_end', 'ddl_command_end', 'schema_notifications.notify_schema_change'),
               ('schema_notifications_sql_drop', 'sql_drop', 'schema_notifications.notify_schema_drop'),
               ('schema_notifications_extension_start', 'ddl_command_start',
                'schema_notifications.prepare_extension_command'));
    SELECT fingerprint = schema_notifications.fingerprint() INTO function_unaltered FROM schema_notifications.state;
    SELECT changed_at INTO last_change FROM schema_notifications.log ORDER BY txid DESC, id DESC LIMIT 1;
    SELECT count(*), pg_total_relation_size('schema_notifications.log') INTO log_rows, log_bytes
      FROM schema_notifications.log;
    queue_usage := pg_notification_queue_usage();
    -- Rows and a horizon that only a hand can have made (pg_write_all_data may write to every table).
    is_credible := pg_is_in_recovery() OR (
        SELECT horizon < pg_snapshot_xmax(pg_current_snapshot()) AND NOT EXISTS (
                   SELECT FROM schema_notifications.log
                    WHERE txid <= horizon OR txid > greatest(pg_snapshot_xmax(pg_current_snapshot()), pg_current_xact_id_if_assigned()))
               AND NOT EXISTS (
                   SELECT FROM schema_notifications.log WHERE id > pg_current_wal_insert_lsn() - '0/0' AND NOT
                       -- rows from before pg_upgrade, or of the database that this is a copy of
                       txid < pg_snapshot_xmin(pg_current_snapshot()))
          FROM schema_notifications.state);

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
        CASE WHEN is_credible IS NOT TRUE THEN
            'The log or the state of the feed was written to by hand (pg_write_all_data may do that), so readers may have been told '
            'what was not so: find out by whom, have readers read the schema again, and run DROP EXTENSION schema_notifications and '
            'CREATE EXTENSION schema_notifications.' END,
        CASE WHEN queue_usage > 0.5 THEN
            format('The notification queue is %s %% full: end the long transaction of the listener that holds it '
                   '(see pg_stat_activity).', round(100 * queue_usage)) END), '');
    healthy := problem IS NULL;
    advice := schema_notifications.advice();
END
$$;

-- On publications that carry the feed's tables: PostgreSQL publishes every table FOR ALL TABLES, an extension's too.
CREATE FUNCTION schema_notifications.advice() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('The publication %s carries the tables of the extension schema_notifications: its subscribers stop at "target relation '
                  'schema_notifications.log does not exist" unless CREATE EXTENSION schema_notifications is run there first (their own feed '
                  'takes no rows from here); or publish the application''s schemas or tables by name.',
                  string_agg(DISTINCT quote_ident(pubname), ', '))
      FROM pg_publication_tables WHERE schemaname = 'schema_notifications' HAVING count(*) > 0
$$;

------------------------------------------------------------------------------------------------------------------------
-- 7. Who may do what
------------------------------------------------------------------------------------------------------------------------

-- Nobody else may do anything, whatever default privileges the installing role has. A reader is given what it needs by name:
--   GRANT USAGE ON SCHEMA schema_notifications TO reader;
--   GRANT EXECUTE ON FUNCTION schema_notifications.changes_since TO reader;
DO $$
DECLARE
    revoke  text;
BEGIN
    FOR revoke IN
        SELECT DISTINCT format('REVOKE ALL ON %s FROM %s CASCADE', object,
                               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
          FROM (SELECT 'SCHEMA schema_notifications' AS object, nspowner AS owner,
                       coalesce(nspacl, acldefault('n', nspowner)) AS acl
                  FROM pg_namespace WHERE nspname = 'schema_notifications'
                UNION ALL
                SELECT 'TABLE ' || oid::regclass, relowner, coalesce(relacl, acldefault('r', relowner))
                  FROM pg_class WHERE relnamespace = 'schema_notifications'::regnamespace AND relkind = 'r'
                UNION ALL
                SELECT 'FUNCTION ' || oid::regprocedure, proowner, coalesce(proacl, acldefault('f', proowner))
                  FROM pg_proc WHERE pronamespace = 'schema_notifications'::regnamespace) AS objects,
               aclexplode(acl)
         WHERE grantee <> owner
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$$;
GRANT USAGE ON SCHEMA schema_notifications TO pg_database_owner, pg_monitor;
GRANT SELECT ON schema_notifications.log TO pg_database_owner;
GRANT EXECUTE ON FUNCTION schema_notifications.changes_since(text, integer), schema_notifications.prune_now() TO pg_database_owner;
GRANT EXECUTE ON FUNCTION schema_notifications.status() TO pg_database_owner, pg_monitor;

INSERT INTO schema_notifications.state (fingerprint) VALUES (schema_notifications.fingerprint());

-- Before it hurts.
DO $$
BEGIN
    IF schema_notifications.advice() IS NOT NULL THEN
        PERFORM set_config('client_min_messages', 'notice', true);      -- which CREATE EXTENSION has set to warning
        RAISE NOTICE '%', schema_notifications.advice();
    END IF;
END
$$;
