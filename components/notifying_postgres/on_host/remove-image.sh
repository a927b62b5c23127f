#!/bin/sh
# Removes an image's name, and with its last name the image. What other stacks or containers still use stays for them.
#   sh remove-image.sh IMAGE STACK
image=$1 stack=$2
notes=$HOME/.notifying-postgres/known/images/$(echo "$image" | tr '/:' '__')

rm -f "$notes/$(echo "$stack" | tr '/:' '__')"
test -z "$(ls "$notes" 2>/dev/null)" || {
	echo "$image stays for other stacks that build it: $(ls "$notes")" >&2
	exit 0
}
docker image inspect "$image" >/dev/null 2>&1 || exit 0
docker image rm "$image" >&2 || echo 'It stays for the containers that still use it.' >&2
