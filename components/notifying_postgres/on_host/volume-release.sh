#!/bin/sh
# Lets a volume go that volume-keep.sh kept.
#   sh volume-release.sh VOLUME
docker rm "$1-kept" >/dev/null 2>&1 || true
