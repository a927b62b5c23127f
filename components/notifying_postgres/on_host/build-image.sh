#!/bin/sh
# Builds the image with the script that builds it by hand, notes it for look.sh, and prints its id.
#   sh build-image.sh IMAGE BASE_IMAGE STACK LOST     LOST, when it changes, has it run again
# Guards against two stacks that build one name at the same time, of which one would remove what the other has just tagged.
image=$1 base_image=$2 stack=$3 lost=$4
notes=$HOME/.notifying-postgres/known/images/$(echo "$image" | tr '/:' '__')
mkdir -p "$notes" || exit

exec 9>"$notes/.lock"
flock 9
# Half an hour is for pulling the base image over a slow line; without a limit a hung build would hang the deploy.
id=$(timeout 1800 bash "$(dirname "$0")/../image/build-postgres-image.sh" --yes --image "$image" --base-image "$base_image" 9>&-) || exit
echo "$id $lost" >"$notes/$(echo "$stack" | tr '/:' '__')"
echo "$id"
