#!/bin/sh
# Guards against two servers on one volume, which destroy its data: PostgreSQL does not notice a second server in another container.
#   sh volume-is-free.sh VOLUME CONTAINER     fails when another container than this one runs on the volume
volume=$1 container=$2

users=$(docker ps --filter "volume=$volume" --format '{{.Names}}') || exit
others=$(echo "$users" | grep -vxF "$container")
test -z "$others" || {
	cat >&2 <<END
The volume $volume is in use by the container $others, and two servers on one volume destroy its data.
Stop that container first ('docker stop -t 60 NAME' on the host), then deploy again. Nothing was changed.
END
	exit 1
}
