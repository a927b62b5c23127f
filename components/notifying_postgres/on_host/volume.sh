#!/bin/sh
# Says which volume a database's container gets, and sees to it that the data there fit the image: before anything is stopped it
# refuses an image of another major version than the data, or, where the database says so, carries the data over to a new volume.
#   sh volume.sh CONTAINER VOLUME IMAGE keep|upgrade [BACKUP]
# BACKUP, a folder on the host, is what a new volume begins with: a backup, or a folder of backups, of which the newest.
# The volume's name is the only line on stdout. Run on the host before the container is made or replaced, again and again: a run
# that was cut is gone on with, or undone.
#
# An upgrade goes like this. The old container is stopped, so from here on nobody can write. A second container of the old image,
# without a network, serves the old volume to one of the new image, which fills the new volume (schema-notifications-cluster) and
# proves that nothing is missing. Whatever fails, the new volume goes and the old container is started again.
set -eu
container=$1 volume=$2 image=$3 mode=$4 backup=${5:--}
data=/var/lib/postgresql/data
from=$container-upgrade-from worker=$container-upgrade last=$container-upgrade-end socket=$container-upgrade

# The line to whoever deploys may be cut; what was begun is still brought to an end.
trap '' HUP PIPE
say() { echo "$*" >&2 || true; }
fail() { say "$*" && exit 1; }
quietly() { "$@" >/dev/null 2>&1 || true; }

exists() { docker inspect --type "$1" "$2" >/dev/null 2>&1; }
running() { test "$(docker inspect --type container --format '{{.State.Running}}' "$1" 2>/dev/null)" = true; }
# in_volume VOLUME COMMAND: in a shell, as root, where /volume is the volume, to be read only.
in_volume() { docker run --rm --network none --user 0 --volume "$1:/volume:ro" --entrypoint sh "$image" -c "$2"; }
major_of() { ! exists volume "$1" || in_volume "$1" 'cat /volume/PG_VERSION 2>/dev/null || true'; }
# checkpoint VOLUME IMAGE: where the log stands; the image has to be of the version of the data.
checkpoint() {
	docker run --rm --network none --user 0 --volume "$1:/volume:ro" --entrypoint sh "$2" -c \
		'LC_ALL=C pg_controldata /volume | sed -n "s/^Latest checkpoint location: *//p"'
}

image_major() {
	major=$(docker inspect --type image --format '{{range .Config.Env}}{{println .}}{{end}}' "$1" | sed -n 's/^PG_MAJOR=//p')
	echo "${major:-$(docker run --rm --network none --entrypoint postgres "$1" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')}"
}

#-----------------------------------------------------------------------------------------------------------------------
# Which volume has the data now: the container's; without a container the one of the newest version
#-----------------------------------------------------------------------------------------------------------------------

of_this_database() {
	echo "$volume"
	docker volume ls --quiet --filter label=notifying-postgres.copy-of | while read -r name; do
		case ${name#"$volume"-} in "$name" | '' | *[!0-9]*) ;; *) echo "$name" ;; esac
	done
}
current=$volume
if exists container "$container"; then
	mounted=$(docker inspect --format "{{range .Mounts}}{{if eq .Destination \"$data\"}}{{.Name}}{{end}}{{end}}" "$container")
	if of_this_database | grep -xF "$mounted" >/dev/null; then current=$mounted; fi
else
	newest=0
	for candidate in $(of_this_database); do
		major=$(major_of "$candidate")
		if test "${major:-0}" -gt "$newest"; then current=$candidate newest=$major; fi
	done
fi
have=$(major_of "$current") wanted=$(image_major "$image")

if test -z "$have" && test "$backup" != -; then
	# What a restore that was cut has left cannot be started (PG_VERSION comes last), and is no data of anybody's.
	quietly docker rm --force --volumes "$worker"
	docker run --rm --network none --user 0 --volume "$current:/volume" --entrypoint sh "$image" -c \
		'test ! -d /volume/.filling || find /volume -mindepth 1 -maxdepth 1 -exec rm -rf {} +'
	say "Restoring $backup into the volume $current."
	docker run --name "$worker" --network none --mount "type=bind,source=$backup,target=/backup,readonly" --volume "$current:$data" \
		"$image" schema-notifications-cluster restore /backup "$data" >&2 ||
		fail "$backup could not be restored: see the lines above. Nothing was started."
	quietly docker rm --volumes "$worker"
	have=$wanted
fi
if test -z "$have" || test "$have" = "$wanted"; then
	echo "$current"
	exit
fi

#-----------------------------------------------------------------------------------------------------------------------
# Another major version
#-----------------------------------------------------------------------------------------------------------------------

target=$volume-$wanted
for candidate in $(of_this_database); do
	if test "$candidate" != "$current" && test "$(major_of "$candidate")" = "$wanted"; then target=$candidate; fi
done
there=$(major_of "$target")

if test "$wanted" -lt "$have"; then
	test -n "$there" || fail "The data of $container are on the volume $current and were written by PostgreSQL $have; this image has
PostgreSQL $wanted, which cannot read them. Nothing was changed. Set baseImage to an image of PostgreSQL $have."
	test "$mode" = upgrade || fail "The data of $container are on the volume $current (PostgreSQL $have); this image has PostgreSQL $wanted.
The volume $target still has the data as they were before the upgrade, without what was written since. Nothing was changed.
To go back to it nevertheless, set upgrade: true for this database; to stay, set baseImage to an image of PostgreSQL $have."
	say "$container goes back to PostgreSQL $wanted and the volume $target. What was written since the upgrade is on the volume $current."
	echo "$target"
	exit
fi

test "$mode" = upgrade || fail "The data of $container are on the volume $current and were written by PostgreSQL $have; this image has PostgreSQL $wanted.
Nothing was changed: the database runs on. Either set baseImage to an image of PostgreSQL $have, or set upgrade: true for this
database: the next deploy then stops it, copies all data into the new volume $target, compares both, and starts
PostgreSQL $wanted there; the volume $current stays as it is. Make sure that there is a backup, and room for a second copy."
old_image=$(docker inspect --type container --format '{{.Image}}' "$container" 2>/dev/null) || old_image=''
test -n "$old_image" && test "$(image_major "$old_image")" = "$have" || fail "The data of $container are on the volume $current and were written
by PostgreSQL $have, and there is no container whose image could read them. Nothing was changed. Deploy once with an image of
PostgreSQL $have, then with this one."

user=$(docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$container" | sed -n 's/^POSTGRES_USER=//p')
user=${user:-postgres}

done_before() {
	test "$there" = "$wanted" && ! running "$container" || return 1
	copied=$(in_volume "$target" 'cat /volume/copied_from 2>/dev/null || true')
	test "${copied% *}" = "$current $(checkpoint "$current" "$old_image")"
}
if done_before; then
	say "The volume $target has all data of $current, copied by a deploy that was cut after that."
	echo "$target"
	exit
fi
if test "$there" = "$wanted"; then
	copied=$(in_volume "$target" 'cat /volume/copied_from 2>/dev/null || true')
	test "${copied##* }" = "$(checkpoint "$target" "$image")" || fail "The volume $target has data of PostgreSQL $wanted already, and they are not those that $container has on the volume
$current: a server has written to both. Nothing was changed. To go on with $target, set retainData to true and
deploy; take the database out of the stack and deploy; then put it back with volumeName: $target. To copy $current once more, remove the other first, if nobody misses what is in it: docker volume rm $target"
fi

clean_up() {
	quietly docker rm --force --volumes "$worker" "$last"
	quietly docker stop --time 600 "$from"
	quietly docker rm --volumes "$from"
	quietly docker volume rm "$socket"
}
go_back() {
	trap - EXIT INT TERM
	mine || fail "Another deploy has gone on with this upgrade; this one ends."
	clean_up
	quietly docker volume rm "$target"
	docker start "$container" >/dev/null
	fail "$* PostgreSQL $have runs again on the volume $current, as before."
}
will_go_back() {
	trap 'go_back "The deploy was interrupted."' INT TERM
	trap 'go_back "The upgrade broke off: see the lines above."' EXIT
}
mine() { test "$(docker inspect --format '{{index .Config.Labels "notifying-postgres.run"}}' "$worker" 2>/dev/null)" = "$run"; }

upgradable() {
	extensions=$(docker run --rm --network none --entrypoint sh "$image" -c 'cd "$(pg_config --sharedir)/extension" && echo *.control')
	sh "$(dirname "$0")/upgradable.sh" "$1" "$user" "$extensions"
}
again() { trap - EXIT INT TERM && exec sh "$0" "$container" "$volume" "$image" "$mode" "$backup"; }

run=$$-$(date +%s) gone_on=false
if running "$from" && test "$(docker inspect --format '{{.Image}}' "$worker" 2>/dev/null)" = "$image"; then
	say "A deploy that was cut has begun to copy the data of $container: going on with it."
	run=$(docker inspect --format '{{index .Config.Labels "notifying-postgres.run"}}' "$worker")
	gone_on=true
	will_go_back
else
	clean_up
	if exists volume "$target"; then
		test "$(docker volume inspect --format '{{index .Labels "notifying-postgres.copy-of"}}' "$target")" = "$current" ||
			fail "There is a volume $target that no upgrade has made. Nothing was changed. Rename it or remove it, then deploy again."
		docker volume rm "$target" >/dev/null
	fi
	docker volume create --label "notifying-postgres.copy-of=$current" "$target" >/dev/null

	# Refused while the database still runs: what is known not to go well.
	facts=$(docker run --rm --network none --user 0 --volume "$current:/old:ro" --volume "$target:/new" --entrypoint sh "$image" -c \
		'set -e; du -sk /old | cut -f 1; df -Pk /new | awk "NR == 2 { print \$4 }"; ls -A /old/pg_tblspc')
	# shellcheck disable=SC2086 # three words
	set -- $facts
	problem=''
	test -z "${3:-}" || problem="it has tablespaces outside of the volume, which are not copied: move what is in them to pg_default and drop them"
	test "$2" -ge $(($1 * 3 / 2)) || problem="it has $(($1 / 1024)) MiB, and copying takes half as much again, but the disk has $(($2 / 1024)) MiB left"
	if test -n "$problem"; then
		docker volume rm "$target" >/dev/null
		fail "The volume $current cannot be upgraded: $problem. Nothing was changed: the database runs on."
	fi

	if problem=$(upgradable "$container" 2>/dev/null) && test -n "$problem"; then
		docker volume rm "$target" >/dev/null
		fail "The database cannot be upgraded: $problem
Nothing was changed: the database runs on."
	fi
	say "Stopping $container; its data are copied from PostgreSQL $have to $wanted, into the volume $target."
	docker volume create "$socket" >/dev/null
	docker run --rm --network none --user 0 --volume "$socket:/var/run/postgresql" --entrypoint sh "$image" -c \
		'echo "local all all trust" >/var/run/postgresql/hba && chmod 644 /var/run/postgresql/hba && chmod 3777 /var/run/postgresql'
	docker create --name "$worker" --label "notifying-postgres.run=$run" --network none --volume "$target:$data" --volume "$socket:/from" \
		--env PGHOST=/from --env "PGUSER=$user" "$image" schema-notifications-cluster fill "$data" >/dev/null
	will_go_back
	docker stop --time 60 "$container" >/dev/null
	# Nobody reaches it but the worker: no network, a socket of its own. Its users write nothing, nor do its own workers.
	docker run --detach --name "$from" --network none --env "PGDATA=$data" --volume "$current:$data" --volume "$socket:/var/run/postgresql" \
		"$old_image" postgres -c listen_addresses= -c unix_socket_directories=/var/run/postgresql -c port=5432 \
		-c hba_file=/var/run/postgresql/hba -c default_transaction_read_only=on -c autovacuum=off -c archive_mode=off -c ssl=off \
		-c max_worker_processes=0 -c max_logical_replication_workers=0 -c logging_collector=off -c log_destination=stderr \
		-c log_statement=none >/dev/null
fi
if test "$(docker inspect --format '{{.State.Status}}' "$worker")" = created; then
	until docker exec "$from" pg_isready --quiet --host /var/run/postgresql; do
		running "$from" || go_back "The server of PostgreSQL $have cannot be read: $(docker logs --tail 5 "$from" 2>&1)"
		sleep 0.2
	done
	# Once more: it may have been down before, or its socket closed to us.
	problem=$(upgradable "$from") || go_back "The server of PostgreSQL $have cannot be asked: see the lines above."
	test -z "$problem" || go_back "The database cannot be upgraded: $problem"
	docker start "$worker" >/dev/null
fi

docker logs --follow "$worker" >&2 2>&1 || true
status=$(docker wait "$worker" 2>/dev/null) || status=gone
# The script of the deploy that was cut may live, and brings this to its end: then there is nothing to do but to look again.
if $gone_on; then
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		exists container "$worker" || again
		sleep 1
	done
fi
test "$status" = 0 || go_back "The data could not be copied to PostgreSQL $wanted: see the lines above."

docker stop --time 600 "$from" >/dev/null
copied_from=$(checkpoint "$current" "$old_image")
if ! docker create --name "$last" --network none --volume "$target:$data" "$image" \
	schema-notifications-cluster finish "$data" "$current" "$copied_from" >/dev/null 2>&1; then
	exists container "$last" || go_back "The copy could not be finished."
	quietly docker wait "$last"
	sleep 2
	again
fi
docker start "$last" >/dev/null
test "$(docker wait "$last")" = 0 || go_back "The copy could not be finished: $(docker logs "$last" 2>&1)"
trap - EXIT INT TERM
clean_up
say "$container has all its data on the volume $target now. The volume $current stays as it was (PostgreSQL $have); when nobody needs"
say "it any more: docker volume rm $current"
echo "$target"
