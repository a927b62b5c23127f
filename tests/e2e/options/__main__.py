"""Instances of NotifyingPostgres as the stack's configuration has them, with its options; or what another stack's outputs say."""

from typing import Any

import pulumi
import pulumi_command as command
from notifying_postgres import NotifyingPostgres

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
        depends_on=[command.local.Command("before", create="true")] if "after" in named else None,
        transforms=[label] if "label" in named else None,
        providers=[command.Provider("the-callers")] if "provider" in named else None,
    )


if config.get("reads"):
    urls = pulumi.StackReference(config.require("reads")).require_output("urls")
    pulumi.export("url", urls.apply(lambda by_key: by_key["app"]))
else:
    args: Any = {
        "databases": config.require_object("databases"),
        "image": config.require("image"),
        "base_image": config.require("baseImage"),
    }
    name = config.require("name")
    first = NotifyingPostgres(name, args, options())
    # More instances, each with what it has other than the first.
    others: dict[str, Any] = config.get_object("others") or {}
    instances = {suffix: NotifyingPostgres(f"{name}-{suffix}", args | more) for suffix, more in others.items()}
    pulumi.export("urls", first.urls)
    pulumi.export("hosts", {suffix: one.databases["app"]["host"] for suffix, one in instances.items()})
