#!/bin/sh
# Removes an image's name, and with its last name the image. One that containers still use stays for them.
#   sh remove-image.sh IMAGE
docker image inspect "$1" >/dev/null 2>&1 || exit 0
docker image rm "$1" >&2 || echo 'It stays for the containers that still use it.' >&2
