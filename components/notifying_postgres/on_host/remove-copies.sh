#!/bin/sh
# Removes the volumes that upgrades of a database have made, where the stack says that its data go with it.
#   sh remove-copies.sh VOLUME
volume=$1

docker volume ls --quiet --filter label=notifying-postgres.copy-of | while read -r name; do
	case ${name#"$volume"-} in "$name" | '' | *[!0-9]*) ;; *) docker volume rm "$name" >&2 ;; esac
done
