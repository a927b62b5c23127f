"""One NotifyingPostgres with the options that the stack's configuration names; or what another stack's outputs say."""

from typing import Any

import pulumi
from notifying_postgres import NotifyingPostgres, NotifyingPostgresArgs
from pulumi_command import local

config = pulumi.Config()


def label(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Gives every container a label more."""
    if args.type_ != "docker:index/container:Container":
        return None
    props: dict[str, Any] = {**args.props}
    props["labels"] = [*props["labels"], {"label": "team", "value": "data"}]
    return pulumi.ResourceTransformResult(props, args.opts)


def options() -> pulumi.ResourceOptions:
    named: dict[str, Any] = config.get_object("options") or {}
    return pulumi.ResourceOptions(
        aliases=[pulumi.Alias(name=name) for name in named.get("aliases", [])],
        protect=named.get("protect"),
        depends_on=[local.Command("before", create="true")] if "after" in named else None,
        transforms=[label] if "label" in named else None,
    )


if config.get("reads"):
    urls = pulumi.StackReference(config.require("reads")).require_output("urls")
    pulumi.export("url", urls.apply(lambda by_key: by_key["app"]))
else:
    args: NotifyingPostgresArgs = {
        "databases": config.require_object("databases"),
        "image": config.require("image"),
        "base_image": config.require("baseImage"),
    }
    postgres = NotifyingPostgres(config.require("name"), args, options())
    pulumi.export("urls", postgres.urls)
