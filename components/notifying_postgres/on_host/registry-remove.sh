#!/bin/sh
# Removes this stack's images from the registry, and the registry unless others need it to restart their databases.
#   sh registry-remove.sh CONTAINER PORT KEEPER
name=$1 port=$2 keeper=$3

mine=$(docker inspect --format '{{index .Config.Labels "notifying-postgres.images"}}' "$keeper" 2>/dev/null)
docker rm -f "$keeper" >/dev/null 2>&1 || true
# What containers are made from, and what other stacks have pushed.
used=$(docker ps -aq | xargs -r docker inspect --format '{{.Config.Image}} {{index .Config.Labels "notifying-postgres.images"}}' \
	2>/dev/null | tr ' ' '\n' | cut -d@ -f1)
for image in $mine; do
	echo "$used" | grep -qxF "$image" || docker image rm "$image" >/dev/null 2>&1 || true
done

if echo "$used" | grep -q "^127[.]0[.]0[.]1:$port/"; then
	echo "The registry $name stays: containers on this host, or other stacks, use its images." >&2
	exit 0
fi
# Coolify removes the container of a database that it stops: the image is all that tells of it.
if docker images --format '{{.Repository}}' | grep -q "^127[.]0[.]0[.]1:$port/"; then
	echo "The registry $name stays: stopped databases may need what 'docker images' lists as 127.0.0.1:$port/…" >&2
	echo "Where none does: docker rm -f $name && docker volume rm $name" >&2
	exit 0
fi
docker rm -f "$name" >/dev/null 2>&1 || true
docker volume rm "$name" >/dev/null 2>&1 || true
