#!/bin/sh
# Says, on the machine that deploys, what a failure of `ssh` itself means.
#   sh failed.sh STATUS
test "$1" -ne 255 || echo 'The host could not be reached, or the connection was lost: deploy again, and it goes on from here.' >&2
exit "$1"
