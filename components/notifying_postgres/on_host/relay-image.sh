#!/bin/sh
# Builds the relay's image, sees that it starts, notes it for remove-image.sh, and prints its id.
#   sh relay-image.sh IMAGE BASE_IMAGE STACK
# Two stacks that build one name: see build-image.sh.
image=$1 base_image=$2 stack=$3
notes=$HOME/.notifying-postgres/known/images/$(echo "$image" | tr '/:' '__')
mkdir -p "$notes" || exit

exec 9>"$notes/.lock"
flock 9
echo "Building $image from $base_image, with Python packages from PyPI" >&2
lines=$(DOCKER_BUILDKIT=0 timeout 1800 docker build --build-arg "BASE_IMAGE=$base_image" --tag "$image" "$(dirname "$0")/../relay" 2>&1 9>&-) || {
	echo "$lines" >&2
	echo "The image of the relay, $image, could not be built from $base_image: see the lines above." >&2
	exit 1
}
id=$(docker image inspect --format '{{.Id}}' "$image") || exit
docker run --rm --network none "$id" schema-changes relay --help >/dev/null || {
	echo "The image of the relay, $image, does not start: see the lines above." >&2
	exit 1
}
echo "$id" >"$notes/$(echo "$stack" | tr '/:' '__')"
echo "$id"
