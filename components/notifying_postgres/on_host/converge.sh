#!/bin/sh
# Brings the extension in every database of a server up to date, and the superuser's password, which is the line on stdin.
#   sh converge.sh CONTAINER WHY [VOLUME ATTEMPT]     WHY, when it changes, has it run again
container=$1 volume=$3 attempt=$4

# For look.sh: from here on Pulumi knows the container, and the volume holds data.
if test -n "$volume"; then
	made=$(docker inspect --type container --format '{{.Name}} {{.Id}}' "$container") || exit
	name=${made% *} && name=${name#/}
	mkdir -p "$HOME/.notifying-postgres/known" || exit
	echo "${made#* } $attempt $volume" >"$HOME/.notifying-postgres/known/$name" || exit
	docker ps --all --quiet --filter "name=^$name-cut-off-[0-9]*\$" | while read -r cut_off; do docker rm "$cut_off" >/dev/null; done
fi

# A container that was made and could not start, for its port was taken, say, is started by nobody else.
if ! docker start "$container" >/dev/null || ! timeout 300 docker exec -i "$container" schema-notifications-converge; then
	echo 'The database did not come up. The last lines of its log:' >&2
	docker logs --tail 20 "$container" >&2
	exit 1
fi
