#!/bin/sh
# Puts promtool, which checks metrics and rules as Prometheus reads them, where tests/test_metrics.py finds it: from
# Debian's package `prometheus`, where there is none yet and we are root. The server in it is not started.
set -eu
command -v promtool >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "promtool is not here, and cannot be installed: its tests will be skipped" >&2
    exit 0
fi
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
chmod 755 "$directory"
cd "$directory"
apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; } || {
    echo "promtool cannot be had from Debian's archive now: its tests will be skipped" >&2
    exit 0
}
dpkg-deb -x prometheus_*.deb unpacked
install -m 755 unpacked/usr/bin/promtool /usr/local/bin/promtool
promtool --version
