#!/bin/sh
# Asks the server in a container what an upgrade to another image would lose, and prints a sentence for each thing. Fails when it cannot
# be asked.
#   sh upgradable.sh CONTAINER USER CONTROL_FILES       CONTROL_FILES: those of the extensions that the new image has, in one word
container=$1 user=$2 there=$(echo " $3 " | sed "s/'//g; s/\.control / /g")

ask() {
	docker exec --env 'PGOPTIONS=-c search_path=pg_catalog -c role=none -c standard_conforming_strings=on' "$container" \
		psql -XAtqw -v ON_ERROR_STOP=1 -h /var/run/postgresql -U "$user" -d "$1" -c "$2" </dev/null
}
maintenance=postgres
ask postgres '' >/dev/null 2>&1 || maintenance=template1

# Somebody would wait for what is only in the log in vain, or get changes twice.
ask "$maintenance" "
	SELECT format('the database %I allows no connections: ALTER DATABASE %1\$I ALLOW_CONNECTIONS true, or drop it.', datname)
	  FROM pg_database WHERE NOT datallowconn AND datname <> 'template0';
	SELECT format('the prepared transaction %L is open: COMMIT or ROLLBACK PREPARED it.', gid) FROM pg_prepared_xacts;
	SELECT format('the replication slot %I would be lost: drop it, and let who reads it begin anew after the upgrade.', slot_name)
	  FROM pg_replication_slots WHERE NOT temporary;
	SELECT format('the replication origin %I would be lost: drop it, and begin anew after the upgrade.', roname)
	  FROM pg_replication_origin WHERE roname !~ '^pg_[0-9]';
	SELECT format('the subscription %I would forget where it is: drop it, and subscribe anew after the upgrade.', subname)
	  FROM pg_subscription" || exit
databases=$(ask "$maintenance" "SELECT format('dbname=''%s''', replace(replace(datname, '\\', '\\\\'), '''', '\\'''))
	  FROM pg_database WHERE datallowconn") || exit
printf '%s\n' "$databases" | while IFS= read -r database; do
	ask "$database" "SELECT format('the extension %I in the database %I is not in the new image: drop it, or give a baseImage that has it.',
	                               extname, current_database())
	                   FROM pg_extension WHERE position(' ' || extname || ' ' IN '$there') = 0" || exit
done
