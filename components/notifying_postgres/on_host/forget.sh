#!/bin/sh
# Forgets a database whose data goes with it, or its volume would be missed when it comes back.
#   sh forget.sh CONTAINER
rm -f "$HOME/.notifying-postgres/known/$1"
