"""The queries to PostgreSQL's catalogs: what is in the picture, and which of it was written since.

Nothing here knows what a command does.  Each row of a catalog says which transaction wrote it last (`xmin`), so one scan
finds what any command has created or altered, and counting finds that something was dropped.  `SECTIONS` read objects, all
of them or those with certain oids; `DEPENDENTS` finds the objects whose definition names others, for when these change
their names.

Definitions are PostgreSQL's own, with every name qualified, as `SETTINGS` pins search_path; every name in these queries is
one of pg_catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

SETTINGS = {
    # what definitions are printed with
    "search_path": "pg_catalog, pg_temp",
    "quote_all_identifiers": "off",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    # the queries are always the same, and cheap
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # A view's definition takes locks on its tables.  Who waits for us must not wait long, and where both wait, this session
    # is to give up before PostgreSQL's deadlock check (after 1 s) ends the other.
    "lock_timeout": "300ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

# Begins a reading: one snapshot, and for its time these settings, whatever the session, its role or its database have.
BEGIN = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "SELECT " + ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in SETTINGS.items()),
)

# A schema that is not PostgreSQL's own.
_OURS = r"nspname !~ '^pg_' AND nspname <> 'information_schema'"


def _member(catalog: str, oid: str, types: str = "'e'") -> str:
    """Whether an object is a member of an extension."""
    return (
        f"EXISTS (SELECT FROM pg_depend AS m WHERE m.classid = '{catalog}'::regclass AND m.objid = {oid} "
        f"AND m.objsubid = 0 AND m.deptype IN ({types}))"
    )


def _comment(catalog: str, oid: str, sub: str = "0") -> str:
    return f"LEFT JOIN pg_description AS d ON d.classoid = '{catalog}'::regclass AND d.objoid = {oid} AND d.objsubid = {sub}"


def _qualified(catalog: str, prefix: str, oid: str) -> str:
    """The name of an object of a catalog whose columns begin with `prefix`."""
    return (
        f"(SELECT quote_ident(qn.nspname) || '.' || quote_ident(q.{prefix}name) FROM {catalog} AS q "
        f"JOIN pg_namespace AS qn ON qn.oid = q.{prefix}namespace WHERE q.oid = {oid})"
    )


def _sequence(prefix: str = "s") -> str:
    """The values of a sequence that are not what CREATE SEQUENCE takes by itself."""
    s = prefix
    largest = (
        f"CASE {s}.seqtypid WHEN 'smallint'::regtype THEN 32767 WHEN 'integer'::regtype THEN 2147483647 "
        "ELSE 9223372036854775807 END"
    )
    first = f"CASE WHEN {s}.seqincrement > 0 THEN {s}.seqmin ELSE {s}.seqmax END"
    return f"""
        'start', CASE WHEN {s}.seqstart <> {first} THEN {s}.seqstart END,
        'increment', nullif({s}.seqincrement, 1),
        'min', CASE WHEN {s}.seqmin <> CASE WHEN {s}.seqincrement > 0 THEN 1 ELSE -{largest} - 1 END THEN {s}.seqmin END,
        'max', CASE WHEN {s}.seqmax <> CASE WHEN {s}.seqincrement > 0 THEN {largest} ELSE -1 END THEN {s}.seqmax END,
        'cache', nullif({s}.seqcache, 1),
        'cycle', nullif({s}.seqcycle, false)"""


@dataclass(frozen=True, slots=True)
class Section:
    """Reads the objects of one kind; a key of theirs is (catalog, oid, number of the column or 0)."""

    catalog: str
    """Where the key's oid is from.  A relation's columns have its oid."""
    selector: str
    """The column that has the oid."""
    query: str
    """Gives oid, sub, parent's catalog, parent's oid, kind, schema, name, owner, acl, comment, properties.

    Names are quoted where SQL wants it; acl is NULL where nothing was granted or revoked; properties that are null are left
    out of the picture.  Ends in a WHERE clause that can be narrowed."""

    def sql(self, narrowed: bool) -> str:
        return f"{self.query} AND {self.selector} = ANY(%s::oid[])" if narrowed else self.query


# The relation kinds that stand for themselves: a composite type is in pg_type, an index with its table.
_RELATIONS = "('r', 'p', 'v', 'm', 'f', 'S')"


@cache
def sections(version: int) -> tuple[Section, ...]:
    """What the picture holds, parents before their parts, for a server of this version (such as 160014)."""
    since_15, since_18 = version >= 150000, version >= 180000
    return (
        Section(
            "pg_namespace",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL, 'schema', NULL, quote_ident(nspname), pg_get_userbyid(nspowner), nspacl::text[],
                   d.description, '{{}}'::json
              FROM pg_namespace AS o {_comment("pg_namespace", "o.oid")}
             WHERE {_OURS} AND NOT {_member("pg_namespace", "o.oid")}""",
        ),
        Section(
            "pg_extension",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL, 'extension', NULL, quote_ident(extname), pg_get_userbyid(extowner), NULL::text[],
                   d.description, json_build_object('version', extversion, 'schema', quote_ident(n.nspname))
              FROM pg_extension AS o JOIN pg_namespace AS n ON n.oid = extnamespace {_comment("pg_extension", "o.oid")}
             WHERE true""",
        ),
        Section(
            "pg_foreign_data_wrapper",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL, 'foreign-data wrapper', NULL, quote_ident(fdwname), pg_get_userbyid(fdwowner),
                   fdwacl::text[], d.description,
                   json_build_object('handler', {_qualified("pg_proc", "pro", "fdwhandler")},
                                     'validator', {_qualified("pg_proc", "pro", "fdwvalidator")}, 'options', fdwoptions)
              FROM pg_foreign_data_wrapper AS o {_comment("pg_foreign_data_wrapper", "o.oid")}
             WHERE NOT {_member("pg_foreign_data_wrapper", "o.oid")}""",
        ),
        Section(
            "pg_foreign_server",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL, 'server', NULL, quote_ident(srvname), pg_get_userbyid(srvowner), srvacl::text[],
                   d.description, json_build_object('wrapper', quote_ident(w.fdwname), 'type', srvtype, 'version', srvversion,
                                                    'options', srvoptions)
              FROM pg_foreign_server AS o JOIN pg_foreign_data_wrapper AS w ON w.oid = srvfdw
                   {_comment("pg_foreign_server", "o.oid")}
             WHERE NOT {_member("pg_foreign_server", "o.oid")}""",
        ),
        # An array type, and the row type of a table, belong to what they are made of.
        Section(
            "pg_type",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL,
                   CASE typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'r' THEN 'range' WHEN 'c' THEN 'composite type'
                                ELSE 'type' END,
                   quote_ident(n.nspname), quote_ident(typname), pg_get_userbyid(typowner), typacl::text[], d.description,
                   CASE typtype
                   WHEN 'e' THEN json_build_object('labels', (SELECT json_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum
                                                               WHERE enumtypid = o.oid))
                   WHEN 'd' THEN json_build_object(
                       'type', format_type(typbasetype, typtypmod), 'not_null', nullif(typnotnull, false),
                       'default', coalesce(pg_get_expr(typdefaultbin, 0), typdefault),
                       'collation', (SELECT {_qualified("pg_collation", "coll", "o.typcollation")} FROM pg_type AS base
                                      WHERE base.oid = o.typbasetype AND base.typcollation <> o.typcollation))
                   WHEN 'r' THEN (SELECT json_build_object(
                       'subtype', format_type(rngsubtype, NULL), 'operator_class', {_qualified("pg_opclass", "opc", "rngsubopc")},
                       'collation', {_qualified("pg_collation", "coll", "nullif(rngcollation, 0)")},
                       'canonical', {_qualified("pg_proc", "pro", "rngcanonical")},
                       'subtype_diff', {_qualified("pg_proc", "pro", "rngsubdiff")},
                       'multirange', format_type(rngmultitypid, NULL)) FROM pg_range WHERE rngtypid = o.oid)
                   WHEN 'b' THEN json_build_object(
                       'input', {_qualified("pg_proc", "pro", "typinput")}, 'output', {_qualified("pg_proc", "pro", "typoutput")},
                       'length', nullif(typlen, -1), 'by_value', nullif(typbyval, false), 'alignment', typalign,
                       'storage', typstorage, 'category', typcategory, 'default', typdefault,
                       'element', CASE WHEN typelem <> 0 THEN format_type(typelem, NULL) END)
                   ELSE '{{}}' END
              FROM pg_type AS o JOIN pg_namespace AS n ON n.oid = typnamespace {_comment("pg_type", "o.oid")}
             WHERE {_OURS} AND typisdefined AND typinput <> 'array_in'::regproc
               AND (typtype IN ('e', 'd', 'r', 'b')
                    OR typtype = 'c' AND EXISTS (SELECT FROM pg_class AS r WHERE r.oid = typrelid AND r.relkind = 'c'))
               AND NOT {_member("pg_type", "o.oid")}""",
        ),
        Section(
            "pg_class",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL,
                   CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                                WHEN 'S' THEN 'sequence' ELSE 'table' END,
                   quote_ident(n.nspname), quote_ident(relname), pg_get_userbyid(relowner), relacl::text[], d.description,
                   CASE relkind
                   WHEN 'S' THEN (SELECT json_build_object(
                       'type', format_type(s.seqtypid, NULL), {_sequence()},
                       'unlogged', nullif(relpersistence = 'u', false),
                       'owned_by', (SELECT {_qualified("pg_class", "rel", "a.attrelid")} || '.' || quote_ident(a.attname)
                                      FROM pg_depend AS p
                                      JOIN pg_attribute AS a ON a.attrelid = p.refobjid AND a.attnum = p.refobjsubid
                                     WHERE p.classid = 'pg_class'::regclass AND p.objid = o.oid AND p.objsubid = 0
                                       AND p.refclassid = 'pg_class'::regclass AND p.deptype = 'a'))
                       FROM pg_sequence AS s WHERE s.seqrelid = o.oid)
                   ELSE json_build_object(
                       'definition', CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(o.oid) END,
                       'unlogged', nullif(relpersistence = 'u', false),
                       'partition_by', CASE relkind WHEN 'p' THEN pg_get_partkeydef(o.oid) END,
                       'partition_bound', pg_get_expr(relpartbound, o.oid),
                       'inherits', CASE WHEN relkind IN ('r', 'p', 'f') THEN
                           (SELECT json_agg({_qualified("pg_class", "rel", "inhparent")} ORDER BY inhseqno)
                              FROM pg_inherits WHERE inhrelid = o.oid) END,
                       'of_type', CASE WHEN reloftype <> 0 THEN format_type(reloftype, NULL) END,
                       'row_security', nullif(relrowsecurity, false), 'row_security_forced', nullif(relforcerowsecurity, false),
                       'replica_identity', CASE WHEN relkind IN ('r', 'p') THEN
                           CASE relreplident WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' WHEN 'i' THEN 'index' END END,
                       'access_method', (SELECT quote_ident(amname) FROM pg_am WHERE pg_am.oid = relam AND amname <> 'heap'),
                       'tablespace', (SELECT quote_ident(spcname) FROM pg_tablespace AS t WHERE t.oid = reltablespace),
                       'options', reloptions,
                       'server', CASE relkind WHEN 'f' THEN (SELECT quote_ident(srvname) FROM pg_foreign_table
                           JOIN pg_foreign_server AS f ON f.oid = ftserver WHERE ftrelid = o.oid) END,
                       'server_options', CASE relkind WHEN 'f' THEN
                           (SELECT to_json(ftoptions) FROM pg_foreign_table WHERE ftrelid = o.oid) END)
                   END
              FROM pg_class AS o JOIN pg_namespace AS n ON n.oid = relnamespace {_comment("pg_class", "o.oid")}
             WHERE {_OURS} AND relkind IN {_RELATIONS} AND relpersistence <> 't'
               AND NOT {_member("pg_class", "o.oid", "'e', 'i'")}""",  # internal to a column: the sequence of an identity
        ),
        Section(
            "pg_class",
            "o.attrelid",
            f"""
            SELECT o.attrelid, o.attnum::int, CASE relkind WHEN 'c' THEN 'pg_type' ELSE 'pg_class' END,
                   CASE relkind WHEN 'c' THEN reltype ELSE o.attrelid END,
                   'column', NULL, quote_ident(attname), NULL, attacl::text[], d.description,
                   json_build_object(
                       'type', format_type(atttypid, atttypmod),
                       'collation', CASE WHEN attcollation <> typcollation THEN
                           {_qualified("pg_collation", "coll", "attcollation")} END,
                       'not_null', nullif(attnotnull, false),
                       CASE WHEN attgenerated = '' THEN 'default' ELSE 'expression' END,
                       CASE WHEN atthasdef THEN (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                                                  WHERE adrelid = attrelid AND adnum = attnum) END,
                       'generated', CASE attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' END,
                       'identity', CASE attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
                       'identity_options', CASE WHEN attidentity <> '' THEN
                           (SELECT nullif(json_strip_nulls(json_build_object({_sequence()}))::text, '{{}}')::json
                              FROM pg_depend AS p JOIN pg_sequence AS s ON s.seqrelid = p.objid
                             WHERE p.refclassid = 'pg_class'::regclass AND p.refobjid = attrelid AND p.refobjsubid = attnum
                               AND p.classid = 'pg_class'::regclass AND p.deptype = 'i') END,
                       'storage', CASE WHEN attstorage <> typstorage THEN
                           CASE attstorage WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main'
                                           ELSE 'extended' END END,
                       'compression', CASE attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
                       'statistics', nullif(attstattarget, -1),
                       'options', coalesce(attoptions, attfdwoptions))
              FROM pg_attribute AS o JOIN pg_class AS c ON c.oid = attrelid JOIN pg_namespace AS n ON n.oid = relnamespace
                   JOIN pg_type AS t ON t.oid = atttypid {_comment("pg_class", "o.attrelid", "o.attnum")}
             WHERE {_OURS} AND relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND relpersistence <> 't'
               AND attnum > 0 AND NOT attisdropped""",
        ),
        # Left out: the parts of a foreign key to a partitioned table, one for each partition; and from 18 on a plain NOT NULL,
        # which is with its column.
        Section(
            "pg_constraint",
            "o.oid",
            f"""
            SELECT o.oid, 0, CASE WHEN conrelid <> 0 THEN 'pg_class' ELSE 'pg_type' END,
                   CASE WHEN conrelid <> 0 THEN conrelid ELSE contypid END,
                   'constraint', NULL, quote_ident(conname), NULL, NULL::text[], d.description,
                   json_build_object('definition', pg_get_constraintdef(o.oid))
              FROM pg_constraint AS o JOIN pg_namespace AS n ON n.oid = connamespace {_comment("pg_constraint", "o.oid")}
             WHERE {_OURS} AND (contype IN ('c', 'p', 'u', 'x', 'f') OR contype = 'n' AND (connoinherit OR NOT convalidated))
               AND NOT EXISTS (SELECT FROM pg_constraint AS w WHERE w.oid = o.conparentid AND w.conrelid = o.conrelid)""",
        ),
        # Left out: the index of a constraint.
        Section(
            "pg_class",
            "o.indexrelid",
            f"""
            SELECT o.indexrelid, 0, 'pg_class', o.indrelid, 'index', NULL, quote_ident(c.relname), NULL, NULL::text[],
                   d.description,
                   json_build_object(
                       'definition', pg_get_indexdef(o.indexrelid), 'invalid', nullif(NOT indisvalid, false),
                       'clustered', nullif(indisclustered, false), 'replica_identity', nullif(indisreplident, false),
                       'tablespace', (SELECT quote_ident(spcname) FROM pg_tablespace AS t WHERE t.oid = c.reltablespace))
              FROM pg_index AS o JOIN pg_class AS c ON c.oid = o.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
                   {_comment("pg_class", "o.indexrelid")}
             WHERE {_OURS} AND c.relpersistence <> 't'
               AND NOT EXISTS (SELECT FROM pg_depend AS p WHERE p.classid = 'pg_class'::regclass AND p.objid = o.indexrelid
                                  AND p.objsubid = 0 AND p.refclassid = 'pg_constraint'::regclass AND p.deptype = 'i')""",
        ),
        Section(
            "pg_proc",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL, CASE prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
                   quote_ident(n.nspname), quote_ident(proname) || '(' || pg_get_function_identity_arguments(o.oid) || ')',
                   pg_get_userbyid(proowner), proacl::text[], d.description,
                   CASE WHEN prokind <> 'a' THEN json_build_object('definition', pg_get_functiondef(o.oid))
                   ELSE (SELECT json_build_object(
                       'returns', pg_get_function_result(o.oid), 'parallel', nullif(proparallel, 'u'), 'kind', nullif(aggkind, 'n'),
                       'sfunc', aggtransfn::regprocedure::text, 'stype', format_type(aggtranstype, NULL),
                       'sspace', nullif(aggtransspace, 0), 'initcond', agginitval,
                       'finalfunc', nullif(aggfinalfn, 0)::regprocedure::text, 'finalfunc_extra', nullif(aggfinalextra, false),
                       'finalfunc_modify', aggfinalmodify,
                       'combinefunc', nullif(aggcombinefn, 0)::regprocedure::text,
                       'serialfunc', nullif(aggserialfn, 0)::regprocedure::text,
                       'deserialfunc', nullif(aggdeserialfn, 0)::regprocedure::text,
                       'msfunc', nullif(aggmtransfn, 0)::regprocedure::text,
                       'minvfunc', nullif(aggminvtransfn, 0)::regprocedure::text,
                       'mfinalfunc', nullif(aggmfinalfn, 0)::regprocedure::text,
                       'mstype', CASE WHEN aggmtranstype <> 0 THEN format_type(aggmtranstype, NULL) END,
                       'minitcond', aggminitval,
                       'sortop', nullif(aggsortop, 0)::regoperator::text) FROM pg_aggregate WHERE aggfnoid = o.oid) END
              FROM pg_proc AS o JOIN pg_namespace AS n ON n.oid = pronamespace {_comment("pg_proc", "o.oid")}
             WHERE {_OURS} AND NOT {_member("pg_proc", "o.oid", "'e', 'i'")}""",  # internal to a range type: its constructors
        ),
        # Left out: the copies that a trigger of a partitioned table has on its partitions.
        Section(
            "pg_trigger",
            "o.oid",
            f"""
            SELECT o.oid, 0, 'pg_class', tgrelid, 'trigger', NULL, quote_ident(tgname), NULL, NULL::text[], d.description,
                   json_build_object('definition', pg_get_triggerdef(o.oid), 'enabled', {_enabled("tgenabled")})
              FROM pg_trigger AS o {_comment("pg_trigger", "o.oid")}
             WHERE NOT tgisinternal AND tgparentid = 0 AND NOT {_member("pg_trigger", "o.oid")}""",
        ),
        Section(
            "pg_rewrite",
            "o.oid",
            f"""
            SELECT o.oid, 0, 'pg_class', ev_class, 'rule', NULL, quote_ident(rulename), NULL, NULL::text[], d.description,
                   json_build_object('definition', pg_get_ruledef(o.oid), 'enabled', {_enabled("ev_enabled")})
              FROM pg_rewrite AS o {_comment("pg_rewrite", "o.oid")}
             WHERE o.oid >= 16384 AND rulename <> '_RETURN' AND NOT {_member("pg_rewrite", "o.oid")}""",
        ),
        Section(
            "pg_policy",
            "o.oid",
            f"""
            SELECT o.oid, 0, 'pg_class', polrelid, 'policy', NULL, quote_ident(polname), NULL, NULL::text[], d.description,
                   json_build_object(
                       'command', CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                              WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                       'restrictive', nullif(NOT polpermissive, false),
                       'roles', (SELECT json_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END
                                                 ORDER BY pg_get_userbyid(r)) FROM unnest(polroles) AS r),
                       'using', pg_get_expr(polqual, polrelid), 'check', pg_get_expr(polwithcheck, polrelid))
              FROM pg_policy AS o {_comment("pg_policy", "o.oid")}
             WHERE NOT {_member("pg_policy", "o.oid")}""",
        ),
        Section(
            "pg_statistic_ext",
            "o.oid",
            f"""
            SELECT o.oid, 0, 'pg_class', stxrelid, 'statistics', quote_ident(n.nspname), quote_ident(stxname),
                   pg_get_userbyid(stxowner), NULL::text[], d.description,
                   json_build_object('definition', pg_get_statisticsobjdef(o.oid), 'target', nullif(stxstattarget, -1))
              FROM pg_statistic_ext AS o JOIN pg_namespace AS n ON n.oid = stxnamespace {_comment("pg_statistic_ext", "o.oid")}
             WHERE {_OURS} AND NOT {_member("pg_statistic_ext", "o.oid")}""",
        ),
        Section(
            "pg_event_trigger",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL, 'event trigger', NULL, quote_ident(evtname), pg_get_userbyid(evtowner), NULL::text[],
                   d.description,
                   json_build_object('event', evtevent, 'tags', evttags, 'function', {_qualified("pg_proc", "pro", "evtfoid")},
                                     'enabled', {_enabled("evtenabled")})
              FROM pg_event_trigger AS o {_comment("pg_event_trigger", "o.oid")}
             WHERE NOT {_member("pg_event_trigger", "o.oid")}""",
        ),
        Section(
            "pg_publication",
            "o.oid",
            f"""
            SELECT o.oid, 0, NULL, NULL, 'publication', NULL, quote_ident(pubname), pg_get_userbyid(pubowner), NULL::text[],
                   d.description,
                   json_build_object(
                       'all_tables', nullif(puballtables, false),
                       'publish', array_to_string(ARRAY[CASE WHEN pubinsert THEN 'insert' END,
                                  CASE WHEN pubupdate THEN 'update' END,
                                  CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END], ', '),
                       'via_root', nullif(pubviaroot, false),
                       {"'generated_columns', nullif(pubgencols, 'n')," if since_18 else ""}
                       {_PUBLISHED_SCHEMAS if since_15 else ""}
                       'tables', (SELECT json_agg(t.words ORDER BY t.words) FROM (
                           SELECT {_qualified("pg_class", "rel", "prrelid")} {_PUBLISHED_PART if since_15 else ""} AS words
                             FROM pg_publication_rel WHERE prpubid = o.oid) AS t))
              FROM pg_publication AS o {_comment("pg_publication", "o.oid")}
             WHERE NOT {_member("pg_publication", "o.oid")}""",
        ),
        Section(
            "pg_default_acl",
            "o.oid",
            """
            SELECT o.oid, 0, NULL, NULL, 'default privileges', NULL,
                   'for role ' || quote_ident(pg_get_userbyid(defaclrole))
                   || coalesce(' in schema ' || (SELECT quote_ident(nspname) FROM pg_namespace AS n
                                                 WHERE n.oid = defaclnamespace), '')
                   || ' on ' || CASE defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
                                    WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END,
                   NULL, defaclacl::text[], NULL, '{}'::json
              FROM pg_default_acl AS o
             WHERE true""",
        ),
    )


_PUBLISHED_SCHEMAS = """
                       'schemas', (SELECT json_agg(quote_ident(nspname) ORDER BY nspname) FROM pg_publication_namespace
                                     JOIN pg_namespace AS n ON n.oid = pnnspid WHERE pnpubid = o.oid),"""
_PUBLISHED_PART = """
                           || coalesce(' (' || (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                                                 WHERE attrelid = prrelid AND attnum = ANY (prattrs)) || ')', '')
                           || coalesce(' WHERE ' || pg_get_expr(prqual, prrelid), '')"""


def _enabled(column: str) -> str:
    return f"CASE {column} WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END"


@dataclass(frozen=True, slots=True)
class Scan:
    """Looks through one catalog for rows written since an earlier snapshot, and counts its rows where one can go by itself."""

    name: str
    catalog: str
    key: str
    """SQL: a row's key as text, which begins with the oid of the object to read again."""
    target: str | None
    """The catalog of that oid.  None: all is to be read again, as anything may depend on it."""
    where: str = "true"
    counted: bool = True

    def sql(self) -> str:
        # what was written by a transaction that still ran at that time, or later: a row of a subtransaction does not tell
        # to which transaction it belongs, so this is all that can be said
        recent = "age(xmin) <= (SELECT age(%(since)s::text::xid8::xid))"
        keys = f"array_agg({self.key})"
        if self.counted:
            return f"SELECT '{self.name}', count(*), {keys} FILTER (WHERE {recent}) FROM {self.catalog} WHERE {self.where}"
        return f"SELECT '{self.name}', NULL, {keys} FROM {self.catalog} WHERE {recent} AND {self.where}"

    def list_sql(self) -> str:
        return f"SELECT '{self.name}', coalesce(array_agg({self.key}), '{{}}') FROM {self.catalog} WHERE {self.where}"

    def target_of(self, key: str) -> tuple[str, int]:
        """The catalog and oid of what is to be read again for a row with this key."""
        oid, *rest = key.split(".")
        return self.target or rest[-1], int(oid)


def _by_oid(*catalogs: str, where: str = "oid >= 16384") -> tuple[Scan, ...]:
    return tuple(Scan(catalog, catalog, "oid::text", catalog, where) for catalog in catalogs)


def _part(catalog: str, column: str, target: str) -> Scan:
    """Rows that go only with the object that they are a part of, or with a new version of another row."""
    return Scan(f"{catalog}.{column}", catalog, f"{column}::text", target, counted=False)


@cache
def scans(version: int) -> tuple[Scan, ...]:
    """Every catalog that the picture is made of."""
    described = ", ".join(f"'{catalog}'::regclass" for catalog in dict.fromkeys(section.catalog for section in sections(version)))
    return (
        *_by_oid("pg_namespace", where="true"),
        *_by_oid(
            "pg_extension",
            "pg_foreign_data_wrapper",
            "pg_foreign_server",
            "pg_type",
            "pg_constraint",
            "pg_proc",
            "pg_rewrite",
            "pg_policy",
            "pg_statistic_ext",
            "pg_event_trigger",
            "pg_publication",
            "pg_default_acl",
        ),
        *_by_oid("pg_class", where="oid >= 16384 AND relkind <> 't' AND relpersistence <> 't'"),
        *_by_oid("pg_trigger", where="NOT tgisinternal"),
        _part("pg_attribute", "attrelid", "pg_class"),
        _part("pg_attrdef", "adrelid", "pg_class"),
        _part("pg_sequence", "seqrelid", "pg_class"),
        _part("pg_index", "indexrelid", "pg_class"),
        _part("pg_partitioned_table", "partrelid", "pg_class"),
        _part("pg_foreign_table", "ftrelid", "pg_class"),
        Scan("pg_inherits", "pg_inherits", "concat_ws('.', inhrelid, inhparent)", "pg_class"),
        _part("pg_enum", "enumtypid", "pg_type"),
        _part("pg_range", "rngtypid", "pg_type"),
        _part("pg_aggregate", "aggfnoid::oid", "pg_proc"),
        Scan("pg_publication_rel", "pg_publication_rel", "concat_ws('.', prpubid, oid)", "pg_publication"),
        *(
            [Scan("pg_publication_namespace", "pg_publication_namespace", "concat_ws('.', pnpubid, oid)", "pg_publication")]
            if version >= 150000
            else []
        ),
        Scan(
            "pg_description",
            "pg_description",
            "concat_ws('.', objoid, objsubid, classoid::regclass)",
            "",  # the catalog is in the key
            f"classoid IN ({described}) AND (objoid >= 16384 OR classoid = 'pg_namespace'::regclass)",
        ),
        # Names of these are in definitions, and changes of them are rare; so are changes of what belongs to an extension.
        Scan(
            "members",
            "pg_depend",
            "concat_ws('.', objid, classid, refobjid)",
            None,
            "refclassid = 'pg_extension'::regclass AND deptype = 'e'",
        ),
        *(
            Scan(catalog, catalog, "oid::text", None, "oid >= 16384")
            for catalog in (
                "pg_collation",
                "pg_operator",
                "pg_opclass",
                "pg_opfamily",
                "pg_language",
                "pg_am",
                "pg_ts_config",
                "pg_ts_dict",
                "pg_tablespace",
            )
        ),
    )


@cache
def scan_sql(version: int) -> str:
    """One query for all scans: name, number of rows, keys of the rows written since `since` (an xid8).

    Besides: 'snapshot' with the snapshot's xmin and xmax, 'roles' with a digest of their names (a role is renamed without a
    trace in the other catalogs).
    """
    return " UNION ALL ".join(
        [
            "SELECT 'snapshot', NULL::bigint, ARRAY[pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text] "
            "FROM pg_current_snapshot() AS s",
            "SELECT 'roles', NULL, ARRAY[sum(hashtextextended(rolname::text, oid::bigint))::text] FROM pg_roles",
            *(scan.sql() for scan in scans(version)),
        ]
    )


@cache
def lists_sql(version: int) -> str:
    """One query for all counted scans: name, keys of all rows."""
    return " UNION ALL ".join(scan.list_sql() for scan in scans(version) if scan.counted)


# What is to be read again for these too: the table of an identity's sequence, the constraint of an index and the other way round
# (an index that was there before can become a constraint's), the view of its rule, the range type of a multirange type.
RELATED = """
SELECT refclassid::regclass::text, refobjid FROM pg_depend
 WHERE classid = 'pg_class'::regclass AND objid = ANY(%(pg_class)s::oid[]) AND deptype = 'i'
   AND refclassid IN ('pg_class'::regclass, 'pg_constraint'::regclass)
UNION ALL SELECT 'pg_class', conindid FROM pg_constraint
           WHERE oid = ANY(%(pg_constraint)s::oid[]) AND contype IN ('p', 'u', 'x')
UNION ALL SELECT 'pg_class', ev_class FROM pg_rewrite WHERE oid = ANY(%(pg_rewrite)s::oid[])
UNION ALL SELECT 'pg_type', rngtypid FROM pg_range WHERE rngmultitypid = ANY(%(pg_type)s::oid[])
"""

# Of the objects given as catalogs and oids, those whose definitions may have their names, as catalog and oid of what is to be
# read again.  Types and functions hand a name on, as a function has a table's row type.
DEPENDENTS = """
WITH RECURSIVE given (classid, objid) AS (
    SELECT c::regclass::oid, o FROM unnest(%s::text[], %s::oid[]) AS g (c, o)
), found (classid, objid, handing_on) AS (
    SELECT classid, objid, true FROM given
    UNION
    SELECT 'pg_type'::regclass, reltype, true FROM given JOIN pg_class AS c ON classid = 'pg_class'::regclass AND c.oid = objid
    UNION
    SELECT p.classid, p.objid, p.classid IN ('pg_type'::regclass, 'pg_proc'::regclass)
      FROM found AS f JOIN pg_depend AS p ON p.refclassid = f.classid AND p.refobjid = f.objid
     WHERE f.handing_on)
SELECT classid::regclass::text, objid FROM found
UNION SELECT 'pg_class', ev_class FROM found JOIN pg_rewrite AS r ON classid = 'pg_rewrite'::regclass AND r.oid = objid
UNION SELECT 'pg_class', adrelid FROM found JOIN pg_attrdef AS a ON classid = 'pg_attrdef'::regclass AND a.oid = objid
UNION SELECT 'pg_publication', prpubid FROM found JOIN pg_publication_rel AS r
        ON classid = 'pg_publication_rel'::regclass AND r.oid = objid
"""

# Where a picture is from: two pictures with the same origin are of one database at two times, and their oids mean the same.
ORIGIN = """
SELECT system_identifier::text || '-' || CASE WHEN pg_is_in_recovery() THEN timeline_id
           ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END
       || '-' || (SELECT oid FROM pg_database WHERE datname = current_database()),
       current_setting('server_version_num')::int, current_database()
  FROM pg_control_system(), pg_control_checkpoint()
"""
