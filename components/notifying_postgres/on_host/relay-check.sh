#!/bin/sh
# Changes the schema of the database beside a relay, and sees that the change arrives at every sink.
#   sh relay-check.sh RELAY DATABASE     containers; another DATABASE has it run again
relay=$1

# One that was made and could not start is started by nobody else.
docker start "$relay" >/dev/null || exit
said=$(timeout 200 docker exec "$relay" sh -c \
	'exec schema-changes relay --check 127.0.0.1:9464 --timeout 60 --password-stdin </run/secrets/postgres_password' 2>&1) || {
	echo "A change of the schema did not arrive at every sink of the relay:" >&2
	echo "$said" >&2
	echo 'The last lines of its log:' >&2
	docker logs --tail 20 "$relay" >&2
	exit 1
}
