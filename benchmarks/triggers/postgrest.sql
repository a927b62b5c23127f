-- The way that PostgREST documents: a constant string, when what was created, altered or dropped is of a kind that an API
-- shows, and is not temporary.
CREATE FUNCTION shown(kind text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN kind IN ('schema', 'table', 'foreign table', 'view', 'materialized view', 'function', 'trigger', 'type', 'rule');

CREATE FUNCTION watch_changes() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                WHERE shown(object_type) AND schema_name IS DISTINCT FROM 'pg_temp') THEN
        NOTIFY schema_changed, 'reload schema';
    END IF;
END
$$;
CREATE FUNCTION watch_drops() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE shown(object_type) AND NOT is_temporary) THEN
        NOTIFY schema_changed, 'reload schema';
    END IF;
END
$$;
CREATE EVENT TRIGGER watch_changes ON ddl_command_end EXECUTE FUNCTION watch_changes();
CREATE EVENT TRIGGER watch_drops ON sql_drop EXECUTE FUNCTION watch_drops();
