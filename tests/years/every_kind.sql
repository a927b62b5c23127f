-- A cluster with something of every kind that a copy could lose. Runs on PostgreSQL 14 to 18, in the database `app`, as superuser.
CREATE ROLE owner LOGIN PASSWORD 'kept secret' CONNECTION LIMIT 7 VALID UNTIL '2099-01-01';
CREATE ROLE "Ünïcode role" NOLOGIN;
CREATE ROLE reader NOINHERIT;
CREATE ROLE boss CREATEROLE CREATEDB;
GRANT reader TO owner WITH ADMIN OPTION;
GRANT "Ünïcode role" TO boss;
GRANT pg_monitor TO reader;
ALTER ROLE owner SET work_mem = '7MB';
ALTER ROLE owner IN DATABASE app SET search_path = shop, public;
COMMENT ON ROLE owner IS 'owns it';
ALTER DATABASE app SET timezone = 'Asia/Tokyo';
ALTER DATABASE app SET default_transaction_read_only = on;
ALTER DATABASE app SET statement_timeout = '3s';
ALTER DATABASE app CONNECTION LIMIT 33;
COMMENT ON DATABASE app IS 'the one that matters';
GRANT TEMPORARY ON DATABASE app TO reader;
REVOKE CONNECT ON DATABASE app FROM PUBLIC;
GRANT CONNECT ON DATABASE app TO owner;
ALTER SYSTEM SET work_mem = '5MB';
ALTER SYSTEM SET application_name = 'it''s \quoted';
SET default_transaction_read_only = off;
SET statement_timeout = 0;

CREATE SCHEMA shop AUTHORIZATION owner;
COMMENT ON SCHEMA shop IS 'comment';
GRANT USAGE ON SCHEMA shop TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA shop GRANT SELECT ON TABLES TO reader;
SET ROLE owner;
SET search_path = shop;

CREATE TYPE mood AS ENUM ('sad', 'happy');
ALTER TYPE mood ADD VALUE 'so so' BEFORE 'happy';
CREATE DOMAIN positive AS integer DEFAULT 1 CHECK (VALUE > 0);
CREATE TYPE pair AS (a integer, "B b" text);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE SEQUENCE counter START 17 INCREMENT 5 MAXVALUE 1000 CYCLE CACHE 3;
SELECT nextval('counter'), nextval('counter');
CREATE SEQUENCE untouched AS smallint;

CREATE FUNCTION twice(x integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN x * 2;
CREATE FUNCTION body(x integer) RETURNS SETOF integer LANGUAGE sql BEGIN ATOMIC SELECT 1 AS one WHERE x > 0 UNION ALL SELECT x; END;
CREATE FUNCTION "odd;name"(text DEFAULT 'a;b', VARIADIC rest integer[] DEFAULT '{}') RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = shop AS $f$
-- Name: not a header; Type: VIEW; Schema: -

BEGIN
  RETURN $1 || ';';
END $f$;
CREATE PROCEDURE act(INOUT x integer) LANGUAGE plpgsql AS 'BEGIN x := x + 1; END';
CREATE AGGREGATE total (integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
CREATE OPERATOR === (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq, COMMUTATOR = ===);

CREATE TABLE types (
  id bigint GENERATED ALWAYS AS IDENTITY (START 100) PRIMARY KEY, small smallint, num numeric(30, 10), r real, d double precision,
  cash money, t text COLLATE "C", v varchar(20), c char(5), raw bytea, ts timestamp, tz timestamptz, day date, clock time, clocktz timetz,
  i interval, flag boolean, m mood, p positive, pp pair, ip inet, net cidr, mac macaddr, bits bit varying(9), u uuid, j json, jb jsonb,
  arr integer[][], ranges int4multirange, sp span, tsv tsvector, q tsquery, pt point, poly polygon, lsn pg_lsn, rc regclass, ro regrole,
  gen integer GENERATED ALWAYS AS (small * 2) STORED
);
INSERT INTO types (small, num, r, d, cash, t, v, c, raw, ts, tz, day, clock, clocktz, i, flag, m, p, pp, ip, net, mac, bits, u, j, jb, arr,
                   ranges, sp, tsv, q, pt, poly, lsn, rc, ro)
SELECT n, n / 7.0, n / 3.0, n / 3.0, n, E'tab\tnew\nline\\ ü ' || n, 'v', 'c', decode(to_hex(n + 4096), 'hex'), '2024-02-29 12:00'::timestamp + n * interval '1 h',
       'epoch'::timestamptz + n * interval '1 day', 'infinity', '12:34:56.789', '12:34+02', interval '1 year 2 days -3.5 s', n % 2 = 0, 'so so', n,
       ROW(n, 'x"y')::pair, '::1', '10.0.0.0/8', '08:00:2b:01:02:03', B'101', '00000000-0000-0000-0000-00000000002a',
       '{"a":  1}', '{"b": [1, null]}', '{{1,2},{3,NULL}}', '{[1,3),[5,7)}', span(n, n + 0.1), 'a:1 fat:2B', 'a & !b', '(1,2)', '((0,0),(1,1),(2,0))',
       '16/B374D848', 'shop.counter', 'reader'
  FROM generate_series(1, 50) AS n;
INSERT INTO types (t) VALUES (NULL), (''), (repeat('long ', 20000));
CREATE TABLE empty ();
CREATE TABLE columnless AS SELECT FROM generate_series(1, 3);
CREATE TABLE x (x integer, "ROW" text);
INSERT INTO x VALUES (1, 'a column named like its table');
CREATE TABLE dropped_column (a integer, gone text, b integer NOT NULL DEFAULT twice(4));
ALTER TABLE dropped_column DROP COLUMN gone;
INSERT INTO dropped_column SELECT 1 FROM generate_series(1, 5);
CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS kept;
CREATE TABLE typed OF pair (a PRIMARY KEY);
CREATE TABLE parent (id serial PRIMARY KEY, name text NOT NULL, CONSTRAINT sensible CHECK (id > 0));
CREATE TABLE child (extra integer UNIQUE) INHERITS (parent);
INSERT INTO parent (name) VALUES ('p');
INSERT INTO child (name, extra) VALUES ('c', 1);
CREATE TABLE measures (at date NOT NULL, value integer, PRIMARY KEY (at, value)) PARTITION BY RANGE (at);
CREATE TABLE measures_2024 PARTITION OF measures FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY HASH (value);
CREATE TABLE measures_2024_0 PARTITION OF measures_2024 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE measures_2024_1 PARTITION OF measures_2024 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE measures_else PARTITION OF measures DEFAULT;
INSERT INTO measures SELECT date '2024-01-01' + n, n FROM generate_series(0, 500) AS n;
CREATE TABLE orders (id integer PRIMARY KEY, of integer REFERENCES parent ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  during tsrange, EXCLUDE USING gist (during WITH &&));
INSERT INTO orders VALUES (1, 1, '[2024-01-01, 2024-01-02)');
ALTER TABLE orders ADD CONSTRAINT later CHECK (id < 100) NOT VALID;
CREATE INDEX orders_partial ON orders (of) INCLUDE (id) WHERE of IS NOT NULL;
CREATE INDEX types_expression ON types ((lower(t)), num DESC NULLS LAST) WITH (fillfactor = 70);
CREATE INDEX types_gin ON types USING gin (jb jsonb_path_ops);
CREATE STATISTICS types_statistics (ndistinct, dependencies) ON small, num FROM types;
ALTER TABLE types ALTER COLUMN t SET STATISTICS 500, ALTER COLUMN t SET STORAGE EXTERNAL;
ALTER TABLE types CLUSTER ON types_pkey, SET (autovacuum_vacuum_scale_factor = 0.5), REPLICA IDENTITY FULL;

CREATE VIEW plain AS SELECT id, name, upper(name) AS loud FROM parent WHERE id > 0;
CREATE VIEW renamed (one, two) AS SELECT id, name FROM ONLY parent;
ALTER VIEW renamed RENAME COLUMN two TO "Zwei";
CREATE VIEW joined WITH (security_barrier) AS
  WITH RECURSIVE up AS (SELECT 1 AS n UNION ALL SELECT up.n + 1 FROM up WHERE n < 5)
  SELECT p.id, c.extra, up.n, row_number() OVER (PARTITION BY p.id ORDER BY up.n ROWS 2 PRECEDING) AS number
    FROM parent p LEFT JOIN child c USING (name) CROSS JOIN LATERAL (SELECT n FROM up WHERE up.n = p.id) AS up
   WHERE EXISTS (SELECT FROM orders o WHERE o.of = p.id) OR p.name ~ '^a' OR extract(year FROM now()) > 2000
   GROUP BY p.id, c.extra, up.n HAVING count(*) FILTER (WHERE p.id > 0) >= 0;
CREATE VIEW checked AS SELECT * FROM parent WHERE id < 1000 WITH LOCAL CHECK OPTION;
CREATE VIEW literal AS SELECT v.*, CASE WHEN a = 1 THEN 'x' END AS c FROM (VALUES (1, 'one'), (2, 'two')) AS v(a, b);
CREATE VIEW circular AS SELECT 1 AS a;
CREATE FUNCTION of_circular(circular) RETURNS integer LANGUAGE sql AS 'SELECT $1.a';
CREATE OR REPLACE VIEW circular AS SELECT x AS a FROM x GROUP BY x;
CREATE MATERIALIZED VIEW filled AS SELECT name, count(*) FROM parent GROUP BY name;
CREATE UNIQUE INDEX ON filled (name);
CREATE MATERIALIZED VIEW unfilled AS SELECT id FROM orders WITH NO DATA;
GRANT SELECT (id), UPDATE (name) ON parent TO reader WITH GRANT OPTION;
CREATE RULE logged AS ON INSERT TO renamed DO INSTEAD INSERT INTO parent (name) VALUES (NEW."Zwei") RETURNING id, name;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamped BEFORE INSERT OR UPDATE OF name ON parent FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION stamp('arg');
ALTER TABLE parent DISABLE TRIGGER stamped;
CREATE POLICY mine ON orders FOR SELECT TO reader USING (id = 1 AND of IN (SELECT id FROM parent));
ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
COMMENT ON COLUMN parent.name IS E'its ''name''\nand more';
SELECT lo_from_bytea(424242, decode(repeat('c0ffee', 5000), 'hex'));
SELECT lo_put(lo_create(424243), 100000, 'after a hole');
GRANT SELECT ON LARGE OBJECT 424242 TO reader;
COMMENT ON LARGE OBJECT 424242 IS 'large';
RESET ROLE;
RESET search_path;

CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE TEXT SEARCH CONFIGURATION shop.words (COPY = simple);
CREATE COLLATION shop.posix FROM "C";
CREATE CAST (shop.pair AS text) WITH INOUT;
CREATE PUBLICATION everything FOR TABLE shop.parent, shop.types WITH (publish = 'insert');
CREATE FUNCTION shop.forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no DDL here: %', tg_tag; END$$;
CREATE EVENT TRIGGER forbid ON ddl_command_start WHEN TAG IN ('DROP SCHEMA') EXECUTE FUNCTION shop.forbid();
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing OPTIONS (host 'x');
CREATE USER MAPPING FOR owner SERVER elsewhere OPTIONS (user 'u', password 'foreign secret');
CREATE FOREIGN TABLE shop.far (a integer) SERVER elsewhere;

-- A hundred tables.
DO $$BEGIN
  FOR n IN 1..100 LOOP
    EXECUTE format('CREATE TABLE public.%I (id serial PRIMARY KEY, n integer DEFAULT %s, t text)', 'table ' || n, n);
    EXECUTE format('INSERT INTO public.%I (t) SELECT md5((%s * g)::text) FROM generate_series(1, %s) AS g', 'table ' || n, n, n);
  END LOOP;
END$$;

CREATE DATABASE "od'd \ ""name""" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' OWNER owner;
CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C';
CREATE DATABASE pattern IS_TEMPLATE true;
\connect -reuse-previous=on 'dbname=ascii'
CREATE TABLE bytes AS SELECT convert_from('\x41e44280ff42'::bytea, 'SQL_ASCII') AS t;
\connect -reuse-previous=on '"dbname=\'od\\\'d \\\\ ""name""\'"'
SET client_encoding = 'UTF8';
CREATE TABLE "größe" (t text);
INSERT INTO "größe" VALUES ('çà');
\connect template1
CREATE TABLE in_each_new_database (a integer);
