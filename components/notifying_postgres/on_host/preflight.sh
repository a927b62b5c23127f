#!/bin/sh
# Guards against deploying to a host that cannot run the databases, or that is not the one which holds them.
#   sh preflight.sh WHERE NETWORK KNOWN     NETWORK and KNOWN may be -
# Prints the id of the Docker engine. KNOWN is the one that an earlier deploy found: on another engine the databases would start empty.
where=$1 network=$2 known=$3

engine=$(docker info --format '{{.ID}}' 2>&1) || {
	echo "Docker cannot be used on $where: $engine" >&2
	exit 1
}
test "$network" = - || docker network inspect "$network" >/dev/null 2>&1 || {
	echo "There is no Docker network '$network' on $where: make it with 'docker network create', or name another." >&2
	exit 1
}
test "$known" = - || test "$known" = "$engine" || {
	cat >&2 <<END
$where has another Docker engine than the one that holds these databases, and moving there would start them empty.
Nothing was changed. To move: pg_dumpall on the old host, deploy another stack for the new host, restore there, destroy this one.
If the old host is lost: 'pulumi up --refresh --replace' with this resource's URN starts empty databases on the new one.
END
	exit 1
}
echo "$engine"
