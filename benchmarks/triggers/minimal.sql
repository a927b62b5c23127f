-- What the specification asks for, and no more: type, tag and timestamp of each DDL command.
CREATE FUNCTION notify_schema_change() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('schema_changed', json_build_object(
        'type', tg_event,
        'tag', tg_tag,
        'timestamp', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS') || '+00')::text);
END
$$;
CREATE EVENT TRIGGER schema_change ON ddl_command_end EXECUTE FUNCTION notify_schema_change();
