#!/usr/bin/env python3
"""A few of NIST's vectors of ML-KEM-768, to be met by the implementation that fedlora uses.

    make_ml_kem.py FOLDER

FOLDER has `ML-KEM-keyGen-FIPS203/internalProjection.json` and
`ML-KEM-encapDecap-FIPS203/internalProjection.json` of NIST's ACVP server at commit 65370b8. The
crate `fips203` 0.4.3 ships them in `tests/nist_vectors`. Needs the packages `kyber-py` and
`cryptography`, which check the vectors before they are written to `ml_kem_768.json` beside this
file: `kyber-py` all, `cryptography` key generation.
"""

import json
import pathlib
import sys
from importlib.metadata import version

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from kyber_py.ml_kem import ML_KEM_768

PACKAGES = "kyber-py", "cryptography"
NAME = "ML-KEM-768"


def groups(folder, mode):
    text = (folder / f"ML-KEM-{mode}-FIPS203" / "internalProjection.json").read_text()
    return [g for g in json.loads(text)["testGroups"] if g["parameterSet"] == NAME]


def fields(test, *names):
    return {name: test[name].lower() for name in names}


def raw(test, *names):
    return [bytes.fromhex(test[name]) for name in names]


def key_generation(folder):
    (group,) = groups(folder, "keyGen")
    tests = group["tests"][:2]
    for test in tests:
        d, z, ek, dk = raw(test, "d", "z", "ek", "dk")
        assert ML_KEM_768.key_derive(d + z) == (ek, dk)
        key = MLKEM768PrivateKey.from_seed_bytes(d + z)
        assert key.public_key().public_bytes_raw() == ek
    return [{"tcId": t["tcId"], **fields(t, "d", "z", "ek", "dk")} for t in tests]


def encapsulation(folder):
    (group,) = [g for g in groups(folder, "encapDecap") if g["function"] == "encapsulation"]
    tests = group["tests"][:2]
    for test in tests:
        ek, m, c, k = raw(test, "ek", "m", "c", "k")
        assert ML_KEM_768._encaps_internal(ek, m) == (k, c)
    return [{"tcId": t["tcId"], **fields(t, "ek", "m", "c", "k")} for t in tests]


def decapsulation(folder):
    """One key; two ciphertexts made for it and two that were changed, so that it rejects them."""
    (group,) = [g for g in groups(folder, "encapDecap") if g["function"] == "decapsulation"]
    dk = bytes.fromhex(group["dk"])
    tests = []
    for reason in ("no modification", "modify ciphertext"):
        tests += [t for t in group["tests"] if t["reason"] == reason][:2]
    for test in tests:
        c, k = raw(test, "c", "k")
        assert ML_KEM_768.decaps(dk, c) == k
    kept = [{"tcId": t["tcId"], "reason": t["reason"], **fields(t, "c", "k")} for t in tests]
    return {"dk": dk.hex(), "tests": kept}


def main():
    folder = pathlib.Path(sys.argv[1])
    vectors = {
        "source": "NIST ACVP-Server 65370b8, gen-val/json-files; as in the crate fips203 0.4.3",
        "checked_with": {name: version(name) for name in PACKAGES},
        "key_generation": key_generation(folder),
        "encapsulation": encapsulation(folder),
        "decapsulation": decapsulation(folder),
    }
    path = pathlib.Path(__file__).with_name("ml_kem_768.json")
    path.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
