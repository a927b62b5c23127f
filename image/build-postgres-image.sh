#!/usr/bin/env bash
# Builds the image on this machine's Docker engine and proves that it works: it is there, the init script is inside, and a
# container started from it announces a schema change.
#   bash build-postgres-image.sh [--yes] [--image NAME:TAG] [--base-image REFERENCE]
# Asks before it replaces an image; --yes does not. Progress is on stderr, the image's id the only line on stdout.
set -Eeuo pipefail

image=xooo-postgres-notifications:16
base_image=postgres:16-alpine
assume_yes=false
fail() { echo "build-postgres-image.sh: $*" >&2 && exit 1; }

while (($#)); do
	case $1 in
	--yes) assume_yes=true ;;
	--image | --base-image) [[ -n ${2:-} ]] || fail "$1 needs a value, such as $image" ;;&
	--image) image=$2 && shift ;;
	--base-image) base_image=$2 && shift ;;
	*) fail "unknown option $1: --yes, --image NAME:TAG and --base-image REFERENCE are known" ;;
	esac
	shift
done

say() { echo "$*" >&2; }

docker version --format '{{.Server.Version}}' >/dev/null || fail 'the Docker engine does not answer: see the line above. Is it running, and may this user use it?'
former_id=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null) || former_id=''
if [[ -n $former_id ]] && ! $assume_yes; then
	[[ -t 0 ]] || fail "$image exists already; give --yes to rebuild it"
	read -r -p "$image exists already. Rebuild it? [y/N] " answer
	[[ $answer == [yY]* ]] || fail "nothing done: $image stays as it is"
fi

say "Building $image from $base_image (a minute or more if the base image has to be downloaded)"
container=schema-notifications-verify-$$-$RANDOM
unproven=$container:unproven
trap 'docker rm --force --volumes "$container" >/dev/null 2>&1 || true; docker image rm "$unproven" >/dev/null 2>&1 || true' EXIT
trap 'exit 1' INT TERM HUP
# The classic builder is on every engine, and gives the same id for the same input. The tag comes after the proof; until then the
# image has a name of its own, or it would go when somebody removes the same image under another name.
lines=$(DOCKER_BUILDKIT=0 docker build --build-arg "BASE_IMAGE=$base_image" --tag "$unproven" "$(dirname "${BASH_SOURCE[0]}")" 2>&1) || {
	say "$lines"
	fail "the build of $image failed: see the lines above"
}
id=$(docker image inspect --format '{{.Id}}' "$unproven")

# One at a time on a host, whoever they are: if another build took the name between the two commands, the image would go with its
# last name. (What is locked is a file that every user can read.)
give_the_name() {
	exec 9<"$(command -v docker)"
	flock 9
	docker tag "$id" "$image"
	docker image rm "$unproven" >/dev/null
	exec 9<&-
}

if [[ $id == "$former_id" ]]; then
	give_the_name
	say "$image is unchanged, and was verified when it was built"
	echo "$id"
	exit
fi

say "Verifying $image: the init script is inside, and a schema change is announced"
docker run --detach --name "$container" --network none --env POSTGRES_HOST_AUTH_METHOD=trust "$id" >/dev/null ||
	fail "no container starts from $image"
announced=$(docker exec "$container" bash -c '
	[[ -r /docker-entrypoint-initdb.d/init-schema-notifications.sql ]] || { echo "the init script is not inside" && exit 1; }
	schema-notifications-converge </dev/null >/dev/null &&
	psql --no-psqlrc --quiet --username postgres --command "LISTEN schema_changed" --command "CREATE TABLE verification ()"' 2>&1) ||
	fail "$image does not work: $announced. $(docker logs --tail 20 "$container" 2>&1)"
[[ $announced == *'"tag":"CREATE TABLE"'* ]] || fail "$image announced no schema change: $announced"

give_the_name
say "$image is built and verified"
echo "$id"
