#!/bin/sh
# Is this the machine that a stack was deployed to, though its mark is another (see look.sh)? The mark is kept in a user's home folder,
# which goes, or is another user's. Succeeds when something that only a deploy makes is on its Docker engine.
#   sh holds.sh STACK IMAGE
stack=$1 image=$2
containers=$(docker ps --all --quiet --filter "label=notifying-postgres.stack=$stack") && test -n "$containers" ||
	docker image inspect "$image" >/dev/null 2>&1
