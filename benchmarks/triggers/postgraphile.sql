-- The way that PostGraphile's watch mode documents: schema and command of all that changed, and the schemas of all that
-- was dropped, as JSON of any length.
CREATE FUNCTION watch_changes() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    changes json := (SELECT json_agg(json_build_object('schema', schema_name, 'command', command_tag))
                       FROM pg_event_trigger_ddl_commands());
BEGIN
    PERFORM pg_notify('schema_changed', json_build_object('type', 'ddl', 'payload', changes)::text);
END
$$;
CREATE FUNCTION watch_drops() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    schemas json := (SELECT json_agg(DISTINCT schema_name) FROM pg_event_trigger_dropped_objects());
BEGIN
    PERFORM pg_notify('schema_changed', json_build_object('type', 'drop', 'payload', schemas)::text);
END
$$;
CREATE EVENT TRIGGER watch_changes ON ddl_command_end EXECUTE FUNCTION watch_changes();
CREATE EVENT TRIGGER watch_drops ON sql_drop EXECUTE FUNCTION watch_drops();
