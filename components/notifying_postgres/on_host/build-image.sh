#!/bin/sh
# Builds the image with the script that builds it by hand, and prints its id.
#   sh build-image.sh IMAGE BASE_IMAGE
# Half an hour is for pulling the base image over a slow line; without a limit a hung build would hang the deploy.
timeout 1800 bash "$(dirname "$0")/../image/build-postgres-image.sh" --yes --image "$1" --base-image "$2"
