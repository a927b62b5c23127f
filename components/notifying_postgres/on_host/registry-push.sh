#!/bin/sh
# Starts the registry unless it runs, pushes the image, and proves with a pull that Coolify will get it.
#   sh registry-push.sh CONTAINER PORT REGISTRY_IMAGE IMAGE_ID REFERENCE     prints REFERENCE
# The registry has the host's network, so that it listens on 127.0.0.1 and nowhere else: published from a bridge, other containers
# could reach it and push what they like. It is shared by all stacks that use the port, hence made only where it is not there.
set -e
name=$1 port=$2 registry=$3 image=$4 reference=$5

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
docker push -q "$reference" >/dev/null
docker pull -q "$reference" >/dev/null

# Builds that no container uses any more; the engine refuses to remove the others.
docker images --format '{{.Repository}}:{{.Tag}}' "${reference%:*}" | grep -vxF "$reference" | while read -r old; do
	docker image rm "$old" >/dev/null 2>&1 || true
done
echo "$reference"
