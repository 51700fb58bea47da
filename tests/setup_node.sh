#!/bin/sh
# Installs what tests/test_volos.py needs of npm, once. Without node those tests are skipped.
set -eu
cd "$(dirname "$0")/volos"
test -d node_modules/volos-analytics-apigee || npm ci --no-audit --no-fund
