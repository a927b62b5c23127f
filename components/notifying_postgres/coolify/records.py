"""What Coolify's API answers, as far as it is read here (4.3.11). Fields that later versions add do no harm."""

from typing import NotRequired, TypedDict


class Named(TypedDict):
    """A project, a destination or an environment; or what else has a uuid and a name."""

    uuid: str
    name: str


class Environment(Named):
    """The number is that by which a database's record names it."""

    id: int


class ServerSettings(TypedDict):
    """How Coolify treats the server."""

    delete_unused_volumes: NotRequired[bool]


class Server(Named):
    """A server, of which a database's record tells less than the list of them."""

    ip: str
    settings: NotRequired[ServerSettings | None]


class Destination(Named):
    """A Docker network on a server."""

    server: Server


class Record(TypedDict):
    """A database. Passwords and URLs are hidden unless the token has the ability read:sensitive."""

    uuid: str
    status: str
    last_online_at: NotRequired[str | None]
    image: str
    is_public: bool
    public_port: int | None
    public_port_timeout: int | None
    external_db_url: NotRequired[str | None]
    environment_id: int
    destination: Destination
    postgres_user: str
    postgres_db: str
    postgres_password: NotRequired[str]
    postgres_conf: NotRequired[str | None]
    limits_cpuset: NotRequired[str | None]
    description: NotRequired[str | None]
    enable_ssl: NotRequired[bool]
    ssl_mode: NotRequired[str | None]


class Storage(TypedDict):
    """A volume; in earlier versions it has no uuid."""

    id: int
    uuid: NotRequired[str | None]
    name: str
    mount_path: str


class Variable(TypedDict):
    """A variable of the container."""

    uuid: str
    key: str
    value: NotRequired[str | None]


class Schedule(TypedDict):
    """A scheduled backup. It has more fields, which rules.BACKUP names."""

    uuid: str
    save_s3: NotRequired[bool]
    s3_storage_id: NotRequired[int | None]
