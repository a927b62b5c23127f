#!/bin/sh
# Starts the registry unless it runs, pushes the image, and proves with a pull that Coolify will get it.
#   sh registry-push.sh CONTAINER PORT REGISTRY_IMAGE IMAGE_ID REFERENCE KEEPER BASE_IMAGE     prints REFERENCE@sha256:DIGEST
# The registry has the host's network, so that it listens on 127.0.0.1 and nowhere else: published from a bridge, other containers
# could reach it. It is shared by all stacks that use the port, hence made only where it is not there. Every user of the host can
# push to it, and so put another image under a name: the digest that this push is answered with is what Coolify gets, and pulls.
set -e
name=$1 port=$2 registry=$3 image=$4 reference=$5 keeper=$6 base=$7
mine() { docker inspect --format '{{index .Config.Labels "notifying-postgres.images"}}' "$keeper" 2>/dev/null || true; }

if test "$(docker inspect --format '{{.State.Status}} {{.Config.Image}}' "$name" 2>/dev/null)" != "running $registry"; then
	docker image inspect "$registry" >/dev/null 2>&1 || docker pull "$registry" >&2
	docker rm -f "$name" >/dev/null 2>&1 || true
	docker run -d --name "$name" --restart unless-stopped --network host --label coolify.managed=false \
		--log-opt max-size=10m --log-opt max-file=3 -e "REGISTRY_HTTP_ADDR=127.0.0.1:$port" -v "$name:/var/lib/registry" \
		"$registry" >/dev/null
	tries=0
	until docker logs "$name" 2>&1 | grep -q "listening on 127[.]0[.]0[.]1:$port"; do
		tries=$((tries + 1))
		if test $tries -ge 25; then
			{ echo "The registry $name does not start. The last lines of its log:" && docker logs --tail 3 "$name"; } >&2
			exit 1
		fi
		sleep 0.2
	done
fi

docker tag "$image" "$reference"
pushed=$(docker push "$reference")
digest=$(echo "$pushed" | sed -n 's/^.*digest: \(sha256:[0-9a-f]\{64\}\) size: .*$/\1/p')
test -n "$digest" || { echo "docker push $reference told no digest: $pushed" >&2 && exit 1; }
docker pull -q "$reference@$digest" >/dev/null

# The builds of before go as soon as no container is made from them, and no other stack has pushed them.
used=$(docker ps -a --format '{{.Names}}' | grep -vxF "$keeper" | xargs -r docker inspect --type container --format \
	'{{.Config.Image}} {{index .Config.Labels "notifying-postgres.images"}}' 2>/dev/null | tr ' ' '\n' | cut -d@ -f1)
kept=$reference
for old in $(mine); do
	if test "$old" = "$reference"; then
		continue
	elif echo "$used" | grep -qxF "$old"; then
		kept="$kept $old"
	else
		docker image rm "$old" >/dev/null 2>&1 || true
	fi
done

# A container that never runs. It says which images are this stack's, and, being made from the base image, keeps that from Coolify's
# cleanup, which every stop of anything on the server sets off: the next build needs it.
docker rm -f "$keeper-next" >/dev/null 2>&1 || true
docker create --name "$keeper-next" --label coolify.managed=false --label "notifying-postgres.images=$kept" "$base" true >/dev/null
docker rm -f "$keeper" >/dev/null 2>&1 || true
docker rename "$keeper-next" "$keeper"
echo "$reference@$digest"
