#!/bin/sh
# How the backups of all databases on a host are; fails when one went wrong, or its container does not run:
#   ssh HOST sh <components/notifying_postgres/on_host/backups.sh
bad=0
for container in $(docker ps --all --filter label=notifying-postgres.backup --format '{{.Names}}' | sort); do
	echo "$container"
	docker exec "$container" schema-notifications-backup status 2>&1 | sed 's/^/  /'
	# Asked once more, since the status of a pipe is that of its last command.
	docker exec "$container" schema-notifications-backup status >/dev/null 2>&1 || bad=1
done
exit "$bad"
