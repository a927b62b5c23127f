#!/bin/sh
# Keeps a volume from Coolify's cleanup, which deletes those that no container has where 'delete unused volumes' is switched on; and
# Coolify removes the container of a database that it stops or deletes. So a container that never runs has the volume, too.
#   sh volume-keep.sh VOLUME BASE_IMAGE
# To be rid of both: docker rm VOLUME-kept && docker volume rm VOLUME
set -e
volume=$1 base=$2

docker container inspect "$volume-kept" >/dev/null 2>&1 ||
	docker create --name "$volume-kept" --label coolify.managed=false -v "$volume:/kept" "$base" true >/dev/null
