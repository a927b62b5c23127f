#!/bin/sh
# Brings the extension in every database of a server up to date, and the superuser's password, which is the line on stdin.
#   sh converge.sh CONTAINER [WHY]     WHY, when it changes, has it run again
container=$1

# A container that was made and could not start, for its port was taken, say, is started by nobody else.
if ! docker start "$container" >/dev/null || ! timeout 300 docker exec -i "$container" schema-notifications-converge; then
	echo 'The database did not come up. The last lines of its log:' >&2
	docker logs --tail 20 "$container" >&2
	exit 1
fi
