#!/bin/sh
# Removes the registry, unless databases that are kept, or those of other stacks, need it to restart.
#   sh registry-remove.sh CONTAINER PORT REFERENCE
name=$1 port=$2 reference=$3

if docker ps -a --format '{{.Image}}' | grep -q "^127[.]0[.]0[.]1:$port/"; then
	echo "The registry $name stays: containers on this host use its images." >&2
	exit 0
fi
docker image rm "$reference" >/dev/null 2>&1 || true
# Coolify removes the container of a database that it stops: the image is all that tells of it.
if docker images --format '{{.Repository}}' | grep -q "^127[.]0[.]0[.]1:$port/"; then
	echo "The registry $name stays: stopped databases may need what 'docker images' lists as 127.0.0.1:$port/…" >&2
	echo "Where none does: docker rm -f $name && docker volume rm $name" >&2
	exit 0
fi
docker rm -f "$name" >/dev/null 2>&1 || true
docker volume rm "$name" >/dev/null 2>&1 || true
