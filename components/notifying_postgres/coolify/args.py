"""The arguments of the Coolify resources, for Python programs and, through the schema, for those in other languages."""

from typing import NotRequired, TypedDict

import pulumi


class CoolifyBackupArgs(TypedDict):
    """A schedule by which Coolify dumps the database."""

    frequency: pulumi.Input[str]
    """When: a cron expression, or hourly, daily, weekly, monthly, yearly."""
    enabled: NotRequired[pulumi.Input[bool]]
    """Whether it runs. Default: true."""
    all_databases: NotRequired[pulumi.Input[bool]]
    """Whether to dump the whole server with pg_dumpall instead of single databases. Default: false."""
    databases: NotRequired[pulumi.Input[str]]
    """The databases to dump, separated by commas. Default: the one that was made at the first start."""
    s3_storage: NotRequired[pulumi.Input[str]]
    """The uuid of the S3 storage in Coolify that gets a copy. Default: the dumps stay on the host."""
    keep_amount: NotRequired[pulumi.Input[int]]
    """How many dumps to keep on the host; 0 keeps all. Default: Coolify's."""
    keep_days: NotRequired[pulumi.Input[int]]
    """For how many days to keep dumps on the host; 0 keeps all. Default: Coolify's."""
    keep_gigabytes: NotRequired[pulumi.Input[float]]
    """How much to keep on the host; 0 keeps all. Default: Coolify's."""
    keep_amount_s3: NotRequired[pulumi.Input[int]]
    """How many dumps to keep in S3; 0 keeps all. Default: Coolify's."""
    keep_days_s3: NotRequired[pulumi.Input[int]]
    """For how many days to keep dumps in S3; 0 keeps all. Default: Coolify's."""
    keep_gigabytes_s3: NotRequired[pulumi.Input[float]]
    """How much to keep in S3; 0 keeps all. Default: Coolify's."""
    timeout: NotRequired[pulumi.Input[int]]
    """After how many seconds a dump is given up, from 60 to 36000. Default: Coolify's."""


class CoolifyArgs(TypedDict):
    """Where Coolify keeps a database, and how it runs it."""

    project: pulumi.Input[str]
    """The project in Coolify, by uuid or by name."""
    environment: pulumi.Input[str]
    """The environment in the project, by uuid or by name. Another one moves the database there."""
    server: pulumi.Input[str]
    """The server in Coolify, by uuid or by name. It cannot be changed."""
    destination: NotRequired[pulumi.Input[str]]
    """The destination (Docker network) on the server, by uuid or by name. Needed where there are several. It cannot be changed."""
    description: NotRequired[pulumi.Input[str]]
    """The description in the dashboard, at most 255 characters."""
    postgres_conf: NotRequired[pulumi.Input[str]]
    """The text of a postgresql.conf that replaces the image's own. Coolify adds `listen_addresses = '*'` where it is missing."""
    environment_variables: NotRequired[pulumi.Input[dict[str, pulumi.Input[str]]]]
    """Variables of the container, such as `POSTGRES_INITDB_ARGS` (secret). Those set in the dashboard are left alone."""
    public_port: NotRequired[pulumi.Input[int]]
    """The port, 1024 to 65535, at which a proxy publishes the database to the Internet. Default: none."""
    public_port_timeout: NotRequired[pulumi.Input[int]]
    """After how many seconds the proxy ends an idle connection. Default: 3600."""
    limits_memory: NotRequired[pulumi.Input[str]]
    """The memory limit, such as `512m`; `0` is none. Default: `0`."""
    limits_memory_swap: NotRequired[pulumi.Input[str]]
    """The limit of memory and swap together. Default: `0`."""
    limits_memory_swappiness: NotRequired[pulumi.Input[int]]
    """The swappiness, 0 to 100. Default: 60."""
    limits_memory_reservation: NotRequired[pulumi.Input[str]]
    """The memory to keep free for it. Default: `0`."""
    limits_cpus: NotRequired[pulumi.Input[str]]
    """How many processors it may use, such as `1.5`; `0` is all. Default: `0`."""
    limits_cpuset: NotRequired[pulumi.Input[str]]
    """Which processors it may use, such as `0-2`. Default: all."""
    limits_cpu_shares: NotRequired[pulumi.Input[int]]
    """Its weight among others. Default: 1024."""
    health_check_enabled: NotRequired[pulumi.Input[bool]]
    """Whether Coolify checks it with psql. Default: true; without, it is waited for only until it runs."""
    health_check_interval: NotRequired[pulumi.Input[int]]
    """Seconds between two checks. Default: 15."""
    health_check_timeout: NotRequired[pulumi.Input[int]]
    """Seconds that a check may take. Default: 5."""
    health_check_retries: NotRequired[pulumi.Input[int]]
    """How many failed checks make it unhealthy. Default: 5."""
    health_check_start_period: NotRequired[pulumi.Input[int]]
    """Seconds after the start in which failed checks do not count. Default: 5."""
    tags: NotRequired[pulumi.Input[list[str]]]
    """Tags in the dashboard, in lower case. Tags set there by hand are removed."""
    backups: NotRequired[pulumi.Input[list[CoolifyBackupArgs]]]
    """Scheduled backups. Those made in the dashboard are left alone."""
    mount_path: NotRequired[pulumi.Input[str]]
    """Where the volume is mounted. Default: by the major version in the image's tag, where the official image keeps its data."""
    delete_volumes: NotRequired[pulumi.Input[bool]]
    """Whether deleting the database deletes its data. Default: false."""
    start_timeout: NotRequired[pulumi.Input[int]]
    """How many seconds to wait until it is healthy. Default: 300."""
    url: NotRequired[pulumi.Input[str]]
    """Coolify's URL. Default: the provider's configuration `notifying-postgres:coolifyUrl`."""
    token: NotRequired[pulumi.Input[str]]
    """An API token that may read, write and deploy. Default: the provider's configuration `notifying-postgres:coolifyToken`."""


class CoolifyDatabaseArgs(CoolifyArgs):
    """A PostgreSQL server that Coolify runs and shows in its dashboard."""

    image: pulumi.Input[str]
    """The image, which the server must be able to pull, with a tag that begins with PostgreSQL's major version."""
    name: NotRequired[pulumi.Input[str]]
    """The name in the dashboard. Default: the resource's name."""
    postgres_user: NotRequired[pulumi.Input[str]]
    """The superuser that is made at the first start. It cannot be changed. Default: `postgres`."""
    postgres_password: NotRequired[pulumi.Input[str]]
    """The superuser's password. A later change reaches Coolify's record, not PostgreSQL itself. Default: Coolify generates one."""
    postgres_db: NotRequired[pulumi.Input[str]]
    """The database that is made at the first start. It cannot be changed. Default: `postgres`."""
    docker: NotRequired[pulumi.Input[str]]
    """The command line that reaches the server's Docker engine from this machine, such as `ssh root@203.0.113.7 docker`, to ask the
    container itself whether it runs. Default: Coolify is asked, which takes up to a minute longer."""


class CoolifyPasswordArgs(TypedDict):
    """The superuser's password in Coolify's record of a database, which its URLs and backups use."""

    database: pulumi.Input[str]
    """The database's uuid."""
    password: pulumi.Input[str]
    """The password that PostgreSQL has by now."""
    url: NotRequired[pulumi.Input[str]]
    """Coolify's URL. Default: the provider's configuration `notifying-postgres:coolifyUrl`."""
    token: NotRequired[pulumi.Input[str]]
    """An API token with the abilities read and write. Default: the provider's configuration `notifying-postgres:coolifyToken`."""
