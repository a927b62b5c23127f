"""A stack of its own that imports the component, after `pip install 'notifying-postgres[pulumi]'`."""

import pulumi
from notifying_postgres import NotifyingPostgres, NotifyingPostgresArgs

config = pulumi.Config()

args: NotifyingPostgresArgs = {
    "databases": {
        "orders": {"memory": "512m"},
        "events": {"user": "ingest", "retain_data": config.get_bool("retainData", True)},
    },
    "image": config.get("image", "xooo-postgres-notifications:16"),
    "base_image": config.get("baseImage", "postgres:16-alpine"),
}
if config.get("host"):
    args["host"] = config.require("host")
    args["host_key"] = config.require("hostKey")
    args["private_key_file"] = config.require("privateKeyFile")

postgres = NotifyingPostgres(pulumi.get_stack(), args)

pulumi.export("ordersUrl", postgres.urls["orders"])
pulumi.export("databases", postgres.databases)
