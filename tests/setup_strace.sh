#!/bin/sh
# Puts strace, with which tests/test_system_calls.py looks at what the service really syncs, where there is none yet and
# we are root: Debian's package.
set -eu
command -v strace >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "strace is not here, and cannot be installed: its tests will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq --no-install-recommends strace >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -qq --no-install-recommends strace >/dev/null; } || {
    echo "strace cannot be had from Debian's archive now: its tests will be skipped" >&2
    exit 0
}
strace --version | head -n 1
