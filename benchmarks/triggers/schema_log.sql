-- The way that pgstream and Zero document, in our own words: at each command that may have changed a schema, the whole schema
-- (tables, columns, primary keys, indexes) as JSON, with a version, into a table that travels with the rows by logical
-- replication. One row per schema that the command touched; no notice. In PL/pgSQL, which keeps the plans.
CREATE SCHEMA schema_log;
CREATE TABLE schema_log.log (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version     bigint      NOT NULL,
    schema_name text        NOT NULL,
    written_at  timestamptz NOT NULL DEFAULT now(),
    schema      jsonb       NOT NULL
);
CREATE UNIQUE INDEX ON schema_log.log (schema_name, version);

CREATE FUNCTION schema_log.tables_of(schema_name text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'oid', c.oid::bigint,
               'name', c.relname,
               'columns', (
                   SELECT coalesce(jsonb_agg(jsonb_build_object(
                              'name', a.attname,
                              'type', format_type(a.atttypid, a.atttypmod),
                              'default', pg_get_expr(d.adbin, d.adrelid),
                              'nullable', NOT a.attnotnull,
                              'identity', a.attidentity,
                              'unique', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique
                                                   AND i.indnatts = 1 AND i.indkey[0] = a.attnum)) ORDER BY a.attnum), '[]')
                     FROM pg_attribute a
                     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
               'primary_key', (
                   SELECT jsonb_agg(a.attname ORDER BY array_position(i.indkey::int2[], a.attnum))
                     FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
                    WHERE i.indrelid = c.oid AND i.indisprimary),
               'indexes', (
                   SELECT jsonb_agg(jsonb_build_object('name', x.relname, 'definition', pg_get_indexdef(x.oid)) ORDER BY x.relname)
                     FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                    WHERE i.indrelid = c.oid)) ORDER BY c.relname), '[]')
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = tables_of.schema_name AND c.relkind IN ('r', 'p'));
END
$$;

CREATE FUNCTION schema_log.write(schema_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO schema_log.log (version, schema_name, schema)
    SELECT (SELECT coalesce(max(l.version), 0) + 1 FROM schema_log.log l WHERE l.schema_name = write.schema_name),
           write.schema_name, schema_log.tables_of(write.schema_name);
END
$$;

CREATE FUNCTION schema_log.after_command() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM schema_log.write(touched.schema_name)
       FROM (SELECT DISTINCT c.schema_name FROM pg_event_trigger_ddl_commands() c
              WHERE c.schema_name NOT IN ('pg_temp', 'schema_log')) AS touched;
END
$$;
CREATE FUNCTION schema_log.after_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM schema_log.write(touched.schema_name)
       FROM (SELECT DISTINCT o.schema_name FROM pg_event_trigger_dropped_objects() o
              WHERE NOT o.is_temporary AND o.schema_name <> 'schema_log') AS touched;
END
$$;
CREATE EVENT TRIGGER schema_log_command ON ddl_command_end EXECUTE FUNCTION schema_log.after_command();
CREATE EVENT TRIGGER schema_log_drop ON sql_drop EXECUTE FUNCTION schema_log.after_drop();
