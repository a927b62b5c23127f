"""Random DDL of every kind there is, on few names, so that commands hit each other's objects.  Many fail, and that is meant."""

from __future__ import annotations

import random

TABLES = ["t0", "t1", "t2", "t3", '"Order Items"']
COLUMNS = ["c0", "c1", "c2", '"Größe"']
SCHEMAS = ["public", "public", "public", "app", '"Sales Dept"']
ROLES = ["alice", "bob", '"Dr. ""No"""']
ENUMS = ["mood", "state"]
OTHERS = ["x0", "x1", "x2"]


class RandomDDL:
    """An endless source of SQL; the same seed gives the same commands."""

    def __init__(self, seed: int, version: int) -> None:
        self.random = random.Random(seed)
        self.version = version
        # the tables that there are, with their columns; most commands take one of them
        self.tables: dict[str, list[str]] = {}

    def command(self) -> str:
        """One command, or several that form a transaction."""
        kind = self.random.random()
        if kind < 0.06:
            return "BEGIN; " + "; ".join(self._one() for _ in range(self.random.randint(2, 4))) + "; COMMIT"
        if kind < 0.09:
            return f"BEGIN; {self._one()}; SAVEPOINT s; {self._one()}; ROLLBACK TO s; {self._one()}; COMMIT"
        if kind < 0.12:
            body = self._one()
            return f"DO $do$BEGIN BEGIN {body}; EXCEPTION WHEN division_by_zero THEN NULL; END; END$do$"
        return self._one()

    def _one(self) -> str:
        return self.random.choice(
            [self._tables, self._tables, self._columns, self._columns, self._parts, self._others, self._rights]
        )()

    def _pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def _words(self) -> dict[str, str]:
        one = self.random.choice
        s, s2 = one(SCHEMAS), one(SCHEMAS)
        t, t2 = one(TABLES), one(TABLES)
        st, st2, columns = f"{s}.{t}", f"{s2}.{t2}", COLUMNS
        if self.tables and self.random.random() < 0.85:
            st, st2 = one([*self.tables]), one([*self.tables])
            columns = self.tables[st] or COLUMNS
        return {
            "s": s,
            "s2": s2,
            "t": t,
            "t2": t2,
            "st": st,
            "st2": st2,
            "new": f"{s}.{t}",
            "c": one(columns),
            "c2": one(columns),
            "cn": one(COLUMNS),
            "r": one(ROLES),
            "r2": one(ROLES),
            "e": f"{s2}.{one(ENUMS)}",
            "x": one(OTHERS),
            "x2": one(OTHERS),
            "n": str(self.random.randint(0, 99)),
            "type": one(
                ["integer", "bigint", "text", "numeric(10,2)", "timestamptz", "jsonb", "integer[]", "varchar(20)", "interval"]
            ),
            "own": one([f"{s2}.mood", f"{s2}.x0", f"{s2}.x1", f"{s2}.mood[]", f"{s2}.t0"]),
        }

    def _fill(self, *choices: str) -> str:
        return self._pick(*choices).format(**self._words())

    def _tables(self) -> str:
        return self._fill(
            "CREATE TABLE {new} (id serial PRIMARY KEY, c0 {type}, c1 {own})",
            "CREATE TABLE {new} (id bigint GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 2) PRIMARY KEY, {cn} {type} NOT NULL)",
            "CREATE TABLE {new} (c0 text COLLATE \"C\" DEFAULT 'it''s', c1 integer UNIQUE, CHECK (c1 > {n}))",
            "CREATE TABLE {new} (c0 integer, c1 integer GENERATED ALWAYS AS (c0 * 2) STORED)",
            "CREATE TABLE {new} (id integer PRIMARY KEY REFERENCES {st2}, {cn} {type})",
            "CREATE TABLE {new} (LIKE {st2} INCLUDING ALL)",
            "CREATE TABLE {new} () INHERITS ({st2})",
            "CREATE TABLE {new} (id integer, {cn} integer) PARTITION BY RANGE (id)",
            "CREATE TABLE {new} (id integer, c1 text) PARTITION BY LIST (c1)",
            "CREATE TABLE {new} PARTITION OF {st2} FOR VALUES FROM (0) TO ({n})",
            "CREATE TABLE {new} PARTITION OF {st2} DEFAULT",
            "CREATE UNLOGGED TABLE {new} AS SELECT 1 AS c0, 'a' AS c1",
            "CREATE TEMPORARY TABLE {t} ({c} {type}) ON COMMIT DROP",
            "CREATE TABLE {new} OF {s2}.x2",
            "DROP TABLE {st}",
            "DROP TABLE {st} CASCADE",
            "DROP TABLE IF EXISTS {st}, {st2} CASCADE",
            "ALTER TABLE {st} RENAME TO {t2}",
            "ALTER TABLE {st} SET SCHEMA {s2}",
            "ALTER TABLE {st} OWNER TO {r}",
            "ALTER TABLE {st} SET UNLOGGED",
            "ALTER TABLE {st} SET LOGGED",
            "ALTER TABLE {st} SET (fillfactor = 7{n})",
            "ALTER TABLE {st} RESET (fillfactor)",
            "ALTER TABLE {st} INHERIT {st2}",
            "ALTER TABLE {st} NO INHERIT {st2}",
            "ALTER TABLE {st} ATTACH PARTITION {st2} FOR VALUES FROM ({n}) TO (200)",
            "ALTER TABLE {st} DETACH PARTITION {st2}",
            "ALTER TABLE {st} REPLICA IDENTITY FULL",
            "ALTER TABLE {st} REPLICA IDENTITY DEFAULT",
            "ALTER TABLE {st} CLUSTER ON {x}",
            "TRUNCATE {st} CASCADE",
        )

    def _columns(self) -> str:
        return self._fill(
            "ALTER TABLE {st} ADD COLUMN {cn} {type}",
            "ALTER TABLE {st} ADD COLUMN {cn} integer NOT NULL DEFAULT {n}, ADD COLUMN {c2} {own}",
            "ALTER TABLE {st} ADD COLUMN {cn} integer GENERATED BY DEFAULT AS IDENTITY",
            "ALTER TABLE {st} ADD COLUMN {cn} serial",
            "ALTER TABLE {st} ADD COLUMN {cn} {type} UNIQUE",
            "ALTER TABLE {st} DROP COLUMN {c}",
            "ALTER TABLE {st} DROP COLUMN {c} CASCADE",
            "ALTER TABLE {st} RENAME COLUMN {c} TO {cn}",
            "ALTER TABLE {st} RENAME COLUMN {c} TO {x}",
            "ALTER TABLE {st} RENAME COLUMN {x} TO {c}",
            "ALTER TABLE {st} ALTER COLUMN {c} TYPE {type} USING NULL",
            'ALTER TABLE {st} ALTER COLUMN {c} TYPE text COLLATE "C"',
            "ALTER TABLE {st} ALTER COLUMN {c} SET NOT NULL",
            "ALTER TABLE {st} ALTER COLUMN {c} DROP NOT NULL",
            "ALTER TABLE {st} ALTER COLUMN {c} SET DEFAULT NULL",
            "ALTER TABLE {st} ALTER COLUMN {c} SET DEFAULT '{n}'",
            "ALTER TABLE {st} ALTER COLUMN {c} SET DEFAULT nextval('{s2}.x0')",
            "ALTER TABLE {st} ALTER COLUMN {c} DROP DEFAULT",
            "ALTER TABLE {st} ALTER COLUMN {c} ADD GENERATED ALWAYS AS IDENTITY",
            "ALTER TABLE {st} ALTER COLUMN {c} SET GENERATED BY DEFAULT SET INCREMENT 3",
            "ALTER TABLE {st} ALTER COLUMN id SET INCREMENT {n}",
            "ALTER TABLE {st} ALTER COLUMN {c} DROP IDENTITY IF EXISTS",
            "ALTER TABLE {st} ALTER COLUMN {c} DROP EXPRESSION IF EXISTS",
            "ALTER TABLE {st} ALTER COLUMN {c} SET STORAGE EXTERNAL",
            "ALTER TABLE {st} ALTER COLUMN {c} SET COMPRESSION pglz",
            "ALTER TABLE {st} ALTER COLUMN {c} SET STATISTICS {n}",
            "ALTER TABLE {st} ALTER COLUMN {c} SET (n_distinct = {n})",
            "ALTER TABLE {st} DROP COLUMN {c}; ALTER TABLE {st} ADD COLUMN {cn} {type}",
            "COMMENT ON COLUMN {st}.{c} IS 'comment {n}'",
            "COMMENT ON COLUMN {st}.{c} IS NULL",
            "GRANT SELECT ({c}), UPDATE ({c}) ON {st} TO {r}",
            "REVOKE UPDATE ({c}) ON {st} FROM {r}",
        )

    def _parts(self) -> str:
        choices = [
            "ALTER TABLE {st} ADD CONSTRAINT {x} CHECK ({c} IS NOT NULL) NOT VALID",
            "ALTER TABLE {st} ADD CONSTRAINT {x} UNIQUE ({c}, {c2})",
            "ALTER TABLE {st} ADD CONSTRAINT {x} FOREIGN KEY ({c}) REFERENCES {st2} ON DELETE CASCADE",
            "ALTER TABLE {st} ADD FOREIGN KEY (id) REFERENCES {st2}",
            "ALTER TABLE {st} ADD PRIMARY KEY ({c})",
            "ALTER TABLE {st} ADD CONSTRAINT {x} EXCLUDE USING btree ({c} WITH =)",
            "ALTER TABLE {st} ADD CONSTRAINT {x} UNIQUE USING INDEX {x2}",
            "ALTER TABLE {st} VALIDATE CONSTRAINT {x}",
            "ALTER TABLE {st} RENAME CONSTRAINT {x} TO {x2}",
            "ALTER TABLE {st} DROP CONSTRAINT {x} CASCADE",
            "ALTER TABLE {st} DROP CONSTRAINT {t}_pkey CASCADE",
            "ALTER TABLE {st} ALTER CONSTRAINT {x} DEFERRABLE INITIALLY DEFERRED",
            "COMMENT ON CONSTRAINT {x} ON {st} IS 'c{n}'",
            "CREATE INDEX {x} ON {st} ({c})",
            "CREATE UNIQUE INDEX {x} ON {st} ({c})",
            "CREATE INDEX {x} ON {st} (lower({c}::text), {c2}) WHERE {c2} IS NOT NULL",
            "CREATE INDEX ON {st} USING hash ({c})",
            "ALTER INDEX {s}.{x} RENAME TO {x2}",
            "ALTER INDEX {s}.{x} SET (fillfactor = 5{n})",
            "DROP INDEX {s}.{x}",
            "COMMENT ON INDEX {s}.{x} IS 'i{n}'",
            "REINDEX TABLE {st}",
            "CREATE TRIGGER {x} BEFORE UPDATE OF {c} ON {st} FOR EACH ROW WHEN (OLD.{c} IS DISTINCT FROM NEW.{c}) "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE TRIGGER {x} AFTER INSERT ON {st} FOR EACH STATEMENT EXECUTE FUNCTION {s2}.trig()",
            "ALTER TRIGGER {x} ON {st} RENAME TO {x2}",
            "ALTER TABLE {st} DISABLE TRIGGER {x}",
            "ALTER TABLE {st} ENABLE ALWAYS TRIGGER {x}",
            "DROP TRIGGER {x} ON {st}",
            "COMMENT ON TRIGGER {x} ON {st} IS 't{n}'",
            "CREATE OR REPLACE RULE {x} AS ON INSERT TO {st} DO ALSO SELECT {c} FROM {st2}",
            "ALTER RULE {x} ON {st} RENAME TO {x2}",
            "DROP RULE {x} ON {st}",
            "ALTER TABLE {st} ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE {st} NO FORCE ROW LEVEL SECURITY",
            "CREATE POLICY {x} ON {st} AS RESTRICTIVE FOR UPDATE TO {r}, {r2} USING ({c} IS NOT NULL) WITH CHECK (true)",
            "CREATE POLICY {x} ON {st} USING (EXISTS (SELECT FROM {st2} AS o WHERE o.{c2} IS NULL))",
            "ALTER POLICY {x} ON {st} RENAME TO {x2}",
            "ALTER POLICY {x} ON {st} TO PUBLIC USING ({c2} IS NULL)",
            "DROP POLICY {x} ON {st}",
            "CREATE STATISTICS {s}.{x} ON {c}, {c2} FROM {st2}",
            "ALTER STATISTICS {s}.{x} SET STATISTICS {n}",
            "DROP STATISTICS {s}.{x}",
        ]
        return self._fill(*choices)

    def _others(self) -> str:
        choices = [
            "CREATE VIEW {s}.v0 AS SELECT * FROM {st2}",
            "CREATE VIEW {s}.v1 AS SELECT a.{c}, b.* FROM {st2} AS a JOIN {s}.v0 AS b USING ({c2})",
            "CREATE VIEW {s}.v2 AS SELECT (f.x).*, {s2}.f(1) AS g, 'a'::{s2}.mood AS m FROM {s2}.tf() AS f(x)",
            "CREATE VIEW {s}.v2 AS SELECT * FROM {s2}.tf()",
            "CREATE VIEW {s}.v3 AS SELECT t AS whole, ROW(1, 'a')::{s2}.x2 AS pair FROM {st2} AS t",
            "CREATE OR REPLACE VIEW {s}.v0 WITH (security_barrier) AS SELECT * FROM {st}",
            "ALTER VIEW {s}.v0 RENAME TO v3",
            "ALTER VIEW {s}.v0 RENAME COLUMN {c} TO {cn}",
            "ALTER VIEW {s}.v0 ALTER COLUMN {c} SET DEFAULT 1",
            "DROP VIEW {s}.v0",
            "DROP VIEW IF EXISTS {s}.v1, {s2}.v2, {s}.v3 CASCADE",
            "CREATE MATERIALIZED VIEW {s}.m AS SELECT {c}, count(*) AS n FROM {st2} GROUP BY {c}",
            "REFRESH MATERIALIZED VIEW {s}.m",
            "ALTER MATERIALIZED VIEW {s}.m SET SCHEMA {s2}",
            "DROP MATERIALIZED VIEW {s}.m CASCADE",
            "CREATE TYPE {e} AS ENUM ('a', 'b')",
            "ALTER TYPE {e} ADD VALUE IF NOT EXISTS 'v{n}' BEFORE 'b'",
            "ALTER TYPE {e} RENAME VALUE 'a' TO 'v{n}'",
            "ALTER TYPE {e} RENAME TO {x}",
            "ALTER TYPE {s}.{x} RENAME TO mood",
            "ALTER TYPE {e} SET SCHEMA {s}",
            "ALTER TYPE {e} OWNER TO {r}",
            "DROP TYPE {e} CASCADE",
            "CREATE TYPE {s}.x2 AS (a integer, b text)",
            "ALTER TYPE {s}.x2 ADD ATTRIBUTE {c} {type} CASCADE",
            "ALTER TYPE {s}.x2 RENAME ATTRIBUTE a TO {c} CASCADE",
            "ALTER TYPE {s}.x2 DROP ATTRIBUTE IF EXISTS {c} CASCADE",
            "COMMENT ON COLUMN {s}.x2.a IS 'attribute {n}'",
            "DROP TYPE IF EXISTS {s}.x2 CASCADE",
            "CREATE TYPE {s}.span AS RANGE (subtype = float8, subtype_diff = float8mi)",
            "ALTER TYPE {s}.span RENAME TO {x}",
            "ALTER TYPE {s}.span_multirange RENAME TO many{n}" if self.version >= 14 else "SELECT 1",
            "DROP TYPE {s}.span CASCADE",
            "CREATE DOMAIN {s}.x0 AS integer DEFAULT {n} CHECK (VALUE > 0)",
            "CREATE DOMAIN {s}.x1 AS {s2}.mood NOT NULL",
            "ALTER DOMAIN {s}.x0 ADD CONSTRAINT {x} CHECK (VALUE < 1{n})",
            "ALTER DOMAIN {s}.x0 DROP CONSTRAINT IF EXISTS {x}",
            "ALTER DOMAIN {s}.x0 SET NOT NULL",
            "ALTER DOMAIN {s}.x0 DROP DEFAULT",
            "ALTER DOMAIN {s}.x0 RENAME TO x1",
            "DROP DOMAIN {s}.x0 CASCADE",
            "CREATE OR REPLACE FUNCTION {s}.f(x integer DEFAULT {n}) RETURNS integer LANGUAGE sql STABLE AS 'SELECT x'",
            "CREATE OR REPLACE FUNCTION {s}.f(x {own}) RETURNS {own} LANGUAGE sql AS 'SELECT x'",
            "CREATE OR REPLACE FUNCTION {s}.tf() RETURNS SETOF {st2} LANGUAGE sql AS 'SELECT NULL::{st2}'",
            "CREATE OR REPLACE FUNCTION {s}.body(y integer) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count({c}) FROM {st2}; END",
            "CREATE OR REPLACE FUNCTION {s}.trig() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END -- {n}'",
            "CREATE OR REPLACE PROCEDURE {s}.p(INOUT a integer) LANGUAGE plpgsql AS 'BEGIN a := {n}; END'",
            "ALTER FUNCTION {s}.f(integer) RENAME TO f{n}",
            "ALTER FUNCTION {s}.f(integer) SET search_path = {s2}",
            "ALTER FUNCTION {s}.f(integer) SET SCHEMA {s2}",
            "ALTER FUNCTION {s}.tf() OWNER TO {r}",
            "DROP FUNCTION {s}.f(integer) CASCADE",
            "DROP FUNCTION {s}.tf() CASCADE",
            "DROP ROUTINE {s}.p CASCADE",
            "CREATE OR REPLACE AGGREGATE {s}.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '{n}')",
            "DROP AGGREGATE {s}.total(integer)",
            "CREATE SEQUENCE {s}.x0 START {n}",
            "ALTER SEQUENCE {s}.x0 OWNED BY {st2}.{c}",
            "ALTER SEQUENCE {s}.x0 OWNED BY NONE",
            "ALTER SEQUENCE {s}.x0 AS smallint INCREMENT 2 MAXVALUE 1{n} CYCLE",
            "ALTER SEQUENCE {s}.x0 RENAME TO {x2}",
            "DROP SEQUENCE {s}.x0 CASCADE",
            "SELECT nextval('{s}.x0')",
            "CREATE SCHEMA {s}",
            "ALTER SCHEMA {s} RENAME TO {s2}",
            "ALTER SCHEMA {s} OWNER TO {r}",
            "COMMENT ON SCHEMA {s} IS 'schema {n}'",
            "COMMENT ON TABLE {st} IS 'table {n}'",
            "COMMENT ON TABLE {st} IS NULL",
            "COMMENT ON FUNCTION {s}.f(integer) IS 'function {n}'",
            "COMMENT ON TYPE {e} IS 'type {n}'",
            "CREATE COLLATION IF NOT EXISTS {s}.coll (locale = 'C')",
            "ALTER TABLE {st} ALTER COLUMN {c} TYPE text COLLATE {s2}.coll",
            "ALTER COLLATION {s}.coll RENAME TO coll2",
            "DROP COLLATION {s}.coll2 CASCADE",
            "CREATE OPERATOR {s}.### (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4pl)",
            "CREATE VIEW {s}.v1 AS SELECT 1 OPERATOR({s2}.###) 2 AS sum",
            "ALTER OPERATOR {s}.### (integer, integer) SET SCHEMA {s2}",
            "DROP OPERATOR {s}.### (integer, integer) CASCADE",
            "CREATE EXTENSION IF NOT EXISTS schema_notifications",
            "DROP EXTENSION schema_notifications",
            "ALTER EXTENSION schema_notifications ADD TABLE {st}",
            "ALTER EXTENSION schema_notifications DROP TABLE {st}",
            "CREATE EVENT TRIGGER {x} ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION {s}.et()",
            "CREATE OR REPLACE FUNCTION {s}.et() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "ALTER EVENT TRIGGER {x} DISABLE",
            "DROP EVENT TRIGGER {x}",
            "CREATE PUBLICATION {x} FOR TABLE {st}",
            "CREATE PUBLICATION {x} FOR ALL TABLES WITH (publish = 'insert')",
            "ALTER PUBLICATION {x} ADD TABLE {st}",
            "ALTER PUBLICATION {x} DROP TABLE {st}",
            "ALTER PUBLICATION {x} RENAME TO {x2}",
            "DROP PUBLICATION {x}",
            "CREATE FOREIGN DATA WRAPPER w",
            "CREATE SERVER srv FOREIGN DATA WRAPPER w OPTIONS (host 'h{n}')",
            "ALTER SERVER srv RENAME TO srv2",
            "CREATE FOREIGN TABLE {new} ({cn} {type} OPTIONS (a 'b')) SERVER srv OPTIONS (name 'n{n}')",
            "DROP FOREIGN DATA WRAPPER w CASCADE",
        ]
        if self.version >= 15:
            choices += [
                "CREATE PUBLICATION {x} FOR TABLE {st} ({c}) WHERE ({c} IS NOT NULL)",
                "CREATE PUBLICATION {x} FOR TABLES IN SCHEMA {s}",
                "ALTER TABLE {st} ADD CONSTRAINT {x} UNIQUE NULLS NOT DISTINCT ({c})",
            ]
        if self.version >= 17:
            choices += ["ALTER TABLE {st} ALTER COLUMN {c} SET EXPRESSION AS (1 + {n})", "GRANT MAINTAIN ON {st} TO {r}"]
        if self.version >= 18:
            choices += [
                "ALTER TABLE {st} ADD COLUMN {cn} integer GENERATED ALWAYS AS (1 + {n}) VIRTUAL",
                "ALTER TABLE {st} ADD CONSTRAINT {x} NOT NULL {c} NOT VALID",
                "ALTER TABLE {st} ADD CONSTRAINT {x} CHECK ({c} IS NOT NULL) NOT ENFORCED",
            ]
        return self._fill(*choices)

    def _rights(self) -> str:
        return self._fill(
            "GRANT SELECT, INSERT ON {st} TO {r}",
            "GRANT ALL ON {st} TO {r} WITH GRANT OPTION",
            "GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {r}",
            "GRANT SELECT ON {st} TO PUBLIC",
            "REVOKE ALL ON {st} FROM {r}",
            "REVOKE ALL ON {st} FROM postgres",
            "REVOKE ALL ON ALL TABLES IN SCHEMA {s} FROM PUBLIC, {r}",
            "GRANT USAGE ON SCHEMA {s} TO {r}",
            "REVOKE CREATE ON SCHEMA {s} FROM PUBLIC",
            "REVOKE EXECUTE ON FUNCTION {s}.f(integer) FROM PUBLIC",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {s} TO {r}",
            "GRANT USAGE ON TYPE {e} TO {r}",
            "REVOKE USAGE ON TYPE {e} FROM PUBLIC",
            "GRANT USAGE ON SEQUENCE {s}.x0 TO {r}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT SELECT ON TABLES TO {r}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {r} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} REVOKE SELECT ON TABLES FROM {r}",
            "ALTER ROLE {r} RENAME TO carol",
            "ALTER ROLE carol RENAME TO {r}",
            "DROP OWNED BY {r}",
            "REASSIGN OWNED BY {r} TO {r2}",
            "VACUUM FULL pg_catalog.pg_attribute" if self.random.random() < 0.05 else "ANALYZE {st}",
        )
