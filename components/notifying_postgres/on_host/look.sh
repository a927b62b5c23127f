#!/bin/sh
# Looks at the host before each preview and each deploy, and guards what no state of Pulumi's can: that no second server is started on
# a volume, that nobody else's container is taken, that a volume which was lost is not made anew without a word.
#   sh look.sh preview|up WHERE STACK NETWORK IMAGE [CONTAINER VOLUME]...     NETWORK may be -
# Prints lines that begin with "notifying-postgres:", since a login shell may have had something to say before:
#   engine ID                 of the Docker engine
#   image N                   how often the image was lost: another number has it built again
#   attempt CONTAINER N       how often its making was cut off: another number has it made again
#   backup CONTAINER …        how its backups are, in the words of schema-notifications-backup status
#   done                      all is well; or
#   refused                   and why, in the lines that follow
doing=$1 where=$2 stack=$3 network=$4 image=$5
shift 5
databases=''
known=.notifying-postgres/known # what earlier deploys noted here: see build-image.sh and converge.sh
cd || exit

say() { echo "notifying-postgres: $*"; }
refuse() {
	say refused
	cat
	exit 0
}

engine=$(docker info --format '{{.ID}}' 2>&1) || {
	refuse <<END
Docker cannot be used on $where: $engine
If permission is denied: 'sudo usermod -aG docker $(id -un)' there, and log in again.
END
}
test "$network" = - || docker network inspect "$network" >/dev/null 2>&1 || {
	refuse <<END
There is no Docker network '$network' on $where: make it with 'docker network create', or name another.
END
}
fields='{{.Names}}|{{.ID}}|{{.State}}|{{.Label "notifying-postgres.stack"}}|{{.Mounts}}'
containers=$(docker ps --all --no-trunc --format "$fields") && volumes=$(docker volume ls --quiet) || exit

while test $# -gt 0; do
	container=$1 volume=$2
	databases="$databases $container"
	shift 2
	id='' attempt=0 known_id='' known_volume=''
	test ! -r "$known/$container" || read -r known_id attempt known_volume <"$known/$container"
	data=$volume
	case $known_volume in "$volume"-[0-9]*) data=$known_volume ;; esac # where an upgrade has put them: see volume.sh

	while IFS='|' read -r name its_id state its_stack mounts; do
		case ,$mounts, in *,"$data",*) has_volume=true ;; *) has_volume=false ;; esac
		if test "$name" = "$container"; then
			id=$its_id
			test -n "$its_stack" || ! $has_volume || its_stack=$stack # it may be one that an older version of this made
			test "$its_stack" = "$stack" || {
				refuse <<END
The name $container on $where has ${its_stack:+the stack $its_stack}${its_stack:-somebody else}, as the name of a container. Nothing was changed.
Give another containerName; or, if it is not needed any more: docker stop -t 60 $container && docker rm $container
END
			}
		elif $has_volume && test "$its_stack" != "$stack" && test "${name#"$container"-upgrade}" = "$name"; then
			case $state in
			running | restarting | paused) ;;
			*) test "$(docker inspect --format '{{.HostConfig.RestartPolicy.Name}}' "$its_id")" != no || continue ;;
			esac
			refuse <<END
The volume $data is in use by the container $name on $where ($state), and two servers on one volume destroy its data.
Nothing was changed. First stop and remove that container ('docker stop -t 60 $name && docker rm $name'), then deploy again.
END
		fi
	done <<END
$containers
END

	test "$known_volume" != "$data" || echo "$volumes" | grep -qxF "$data" || {
		refuse <<END
The volume $data, which held the data of $container, is not on $where any more, and the database would start empty.
Nothing was changed. If the data is elsewhere, restore it into a volume of that name first.
To start empty: docker volume create $data
END
	}
	# Made, and not noted by converge.sh: the deploy was cut off meanwhile, and Pulumi may not know of it. It goes out of the way of
	# the one that is made instead; whether Pulumi or converge.sh removes it depends on who knows it.
	if test -n "$id" && test -d "$known" && test "$id" != "$known_id"; then
		attempt=$((attempt + 1))
		test "$doing" = preview || {
			docker stop -t 60 "$id" >/dev/null && docker rename "$id" "$container-cut-off-$(date +%s)"
		} || exit
	fi
	say "attempt $container $attempt"
done

lost=0 image_id=''
note=$known/images/$(echo "$image" | tr '/:' '__')/$(echo "$stack" | tr '/:' '__')
test ! -r "$note" || read -r image_id lost <"$note"
test -z "$image_id" || docker image inspect "$image_id" >/dev/null 2>&1 || lost=$((lost + 1))
say "image $lost"
say "engine $engine"

# Asked all at once.
for container in $databases; do
	state=$(echo "$containers" | awk -F '|' -v name="$container-backup" '$1 == name { print $3 }')
	case $state in
	'') ;;
	running)
		timeout 30 docker exec "$container-backup" schema-notifications-backup status 2>&1 | awk -v "container=$container" '
			/^newest / { told = 1 }
			{ print "notifying-postgres: backup " container " " $0 }
			END { if (!told) print "notifying-postgres: backup " container " wrong " container "-backup does not tell: see docker logs " container "-backup" }' &
		;;
	*) say "backup $container wrong $container-backup, which makes the backups, is $state: docker start $container-backup" ;;
	esac
done
wait
say "done"
