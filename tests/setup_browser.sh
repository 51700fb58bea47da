#!/bin/sh
# Installs what tests/test_status_page.py needs, once: Chromium with its driver, of Debian, where we may; and axe-core, of
# npm, which looks for what keeps people from using a page. Without them those tests are skipped.
set -eu
cd "$(dirname "$0")"
if ! { command -v chromium && command -v chromedriver; } >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    for attempt in 1 2 3; do
        apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y chromium chromium-driver >/dev/null &&
            break
        echo "Chromium cannot be installed (attempt $attempt); without it the tests of the status page are skipped" >&2
        sleep 5
    done
fi
test -f axe/axe.min.js && exit 0
command -v npm >/dev/null || exit 0
rm -rf axe
mkdir axe
cd axe
npm pack --silent axe-core@4.14.1 >/dev/null
tar xzf axe-core-4.14.1.tgz --strip-components=1 package/axe.min.js package/LICENSE
rm axe-core-4.14.1.tgz
