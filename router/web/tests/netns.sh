#!/usr/bin/env bash
# Runs a command, with everything that it starts, in a network namespace of its own: loopback and nothing else. Browsers
# and WebRTC then have no outward address to offer or to leak to, and no port can collide with anything outside.
#   tests/netns.sh node --test tests/*.test.mjs
set -euo pipefail
if [[ "${RUSHROOM_IN_NETNS:-}" == 1 ]]; then exec "$@"; fi
if [[ $(id -u) == 0 ]]; then enter=(unshare --net); else enter=(unshare --net --map-root-user); fi
RUSHROOM_IN_NETNS=1 exec "${enter[@]}" bash -c 'ip link set lo up && exec "$@"' netns "$@"
