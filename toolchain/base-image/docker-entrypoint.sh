#!/usr/bin/env bash
# What the official image's entrypoint promises, for the stand-in base image: the first start with an empty PGDATA makes
# the cluster and the database, runs /docker-entrypoint-initdb.d against it on a server that only the unix socket
# reaches, and then starts PostgreSQL for everybody. Any other start goes straight to PostgreSQL.
set -Eeuo pipefail
shopt -s nullglob

fail() { echo "docker-entrypoint.sh: $*" >&2; exit 1; }

# setting NAME [DEFAULT]: the value of $NAME, or what the file $NAME_FILE holds, is exported as $NAME.
setting() {
	local name=$1 file_name=$1_FILE
	[[ -z ${!name:-} || -z ${!file_name:-} ]] || fail "both $name and $file_name are set; set one of them."
	local value=${!name:-${2:-}}
	[[ -z ${!file_name:-} ]] || value=$(<"${!file_name}") || fail "$file_name: cannot read ${!file_name}."
	export "$name=$value"
	unset "$file_name"
}

init_psql() {
	psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" --host /var/run/postgresql "$@"
}

make_cluster() {
	local auth=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
	[[ -n $POSTGRES_PASSWORD || $auth == trust ]] || fail "the database is empty and no superuser password is given:" \
		"set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE (or POSTGRES_HOST_AUTH_METHOD=trust, which lets anybody in)."
	# POSTGRES_INITDB_ARGS is a command line, quotes included, as in the official image.
	local -a arguments
	eval "arguments=($POSTGRES_INITDB_ARGS)"
	[[ -z ${POSTGRES_INITDB_WALDIR:-} ]] || arguments+=(--waldir="$POSTGRES_INITDB_WALDIR")
	initdb -D "$PGDATA" --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${arguments[@]}"
	printf '\nhost all all all %s\n' "$auth" >>"$PGDATA/pg_hba.conf"
}

run_init_files() {
	local file
	for file in /docker-entrypoint-initdb.d/*; do
		echo "docker-entrypoint.sh: $file"
		case $file in
		*.sh)
			# shellcheck source=/dev/null
			if [[ -x $file ]]; then "$file"; else . "$file"; fi
			;;
		*.sql) init_psql --dbname "$POSTGRES_DB" -f "$file" ;;
		*.sql.gz) gunzip -c "$file" | init_psql --dbname "$POSTGRES_DB" ;;
		*) echo "docker-entrypoint.sh: $file is neither .sh, .sql nor .sql.gz: left alone" ;;
		esac
	done
}

# Read while still root, as the official image does: a password file may be readable by root alone.
read_settings() {
	setting POSTGRES_PASSWORD
	setting POSTGRES_USER postgres
	setting POSTGRES_DB "$POSTGRES_USER"
	setting POSTGRES_INITDB_ARGS
}

# Sets `sockets` to the options that put the socket where the official build has it, beside the place where this build's programs
# look, unless the configuration names a place of its own. It may be a file that the user brought (-c config_file=…).
socket_options() {
	sockets=()
	[[ $("$@" -C unix_socket_directories) != /tmp ]] || sockets=(-c "unix_socket_directories=/var/run/postgresql,/tmp")
}

first_start() {
	make_cluster
	export PGPASSWORD=${PGPASSWORD-$POSTGRES_PASSWORD}
	socket_options "$@"
	pg_ctl -D "$PGDATA" -w start -o "$(printf '%q ' "${@:2}" "${sockets[@]}" -c listen_addresses= -p "${PGPORT:-5432}")"
	if [[ $POSTGRES_DB != postgres ]]; then
		init_psql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
	fi
	run_init_files
	pg_ctl -D "$PGDATA" -m fast -w stop
	unset PGPASSWORD
	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[[ ${1:-} != -* ]] || set -- postgres "$@"

if [[ ${1:-} == postgres && " $* " != *" --version "* && " $* " != *" --help "* ]]; then
	read_settings
	mkdir -p "$PGDATA"
	if [[ $(id -u) == 0 ]]; then
		find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
		exec gosu postgres "$0" "$@"
	fi
	chmod 00700 "$PGDATA"
	[[ -s $PGDATA/PG_VERSION ]] || first_start "$@"
	socket_options "$@"
	set -- "$@" "${sockets[@]}"
fi
exec "$@"
