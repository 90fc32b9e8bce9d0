#!/usr/bin/env python3
"""Test vectors for fedlora's cryptography, from an implementation of its own.

Needs the packages `cryptography`, `blake3`, `argon2-cffi`, `mnemonic` and `kyber-py`; writes
`vectors.json` beside this file.
Nothing here is random: rerunning gives the same file.
"""

import json
import math
import pathlib
import struct
from importlib.metadata import version

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from kyber_py.ml_kem import ML_KEM_768
from mnemonic import Mnemonic

PACKAGES = "cryptography", "blake3", "argon2-cffi", "mnemonic", "kyber-py"
RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


def fixed_bytes(label, length=32):
    """Bytes that look random and are always the same."""
    hasher = blake3(label.encode(), derive_key_context="fedlora test vectors")
    return hasher.digest(length=length)


def derive(context, data):
    return blake3(data, derive_key_context=context).digest()


def number(value):
    return struct.pack("<Q", value)


def framed(data):
    return number(len(data)) + data


# Key agreement: X25519, and ML-KEM-768 beside it in the hybrid suite.

CLASSICAL, HYBRID = 1, 2


def x25519_public(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(*RAW)


class KeyPair:
    """All that derives from one root."""

    def __init__(self, root, suite):
        self.root, self.suite = root, suite
        self.point_secret = derive("fedlora 2 X25519 secret", root)
        self.point = x25519_public(self.point_secret)
        self.kem = self.kem_secret = b""
        if suite == HYBRID:
            seed = blake3(root, derive_key_context="fedlora 2 ML-KEM-768 seed").digest(length=64)
            self.kem, self.kem_secret = ML_KEM_768.key_derive(seed)

    def encoded(self):
        """The public half as it goes into digests."""
        return self.point + framed(self.kem)

    def shared_point(self, theirs):
        own = X25519PrivateKey.from_private_bytes(self.point_secret)
        return own.exchange(X25519PublicKey.from_public_bytes(theirs.point))

    def initiate(self, theirs, context, binding):
        shared, ciphertext = b"", b""
        if self.suite == HYBRID:
            message = derive(
                "fedlora 2 ML-KEM-768 message",
                self.root + framed(context.encode()) + binding + theirs.encoded(),
            )
            shared, ciphertext = ML_KEM_768._encaps_internal(theirs.kem, message)
        seed = self.combine(theirs, shared, (self, theirs), ciphertext, context, binding)
        return ciphertext, seed

    def respond(self, theirs, ciphertext, context, binding):
        shared = ML_KEM_768.decaps(self.kem_secret, ciphertext) if ciphertext else b""
        return self.combine(theirs, shared, (theirs, self), ciphertext, context, binding)

    def combine(self, theirs, shared, pair, ciphertext, context, binding):
        bound = derive(
            "fedlora 2 agreement binding",
            number(self.suite) + pair[0].encoded() + pair[1].encoded() + framed(ciphertext)
            + binding,
        )
        return derive(context, self.shared_point(theirs) + shared + bound)


def pair_binding(transcript, low_keys, high_keys):
    return derive("fedlora 2 pair", transcript + low_keys + high_keys)


def mask_seed(low, high, transcript, low_keys, high_keys):
    """The seed of a pair's mask: the lower of the two encapsulates."""
    binding = pair_binding(transcript, low_keys, high_keys)
    context = "fedlora 2 pair mask seed"
    ciphertext, seed = low.initiate(high, context, binding)
    assert seed == high.respond(low, ciphertext, context, binding)
    return ciphertext, seed


# Masks.


def words(seed, count):
    """AES-256-CTR, counter from zero, read as little-endian 32-bit words."""
    cipher = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    stream = cipher.update(bytes(4 * count)) + cipher.finalize()
    return list(struct.unpack(f"<{count}I", stream))


def pack(bits, lanes):
    """Lanes as one little-endian integer of `bits` bits each, cut into bytes."""
    whole = sum(lane << (bits * place) for place, lane in enumerate(lanes))
    return whole.to_bytes((bits * len(lanes) + 7) // 8, "little")


def add_mask(lanes, seed, sign, bits):
    stream = words(seed, len(lanes))
    return [(lane + sign * word) % (1 << bits) for lane, word in zip(lanes, stream)]


# Fixed point.

LOSS_STEP, LOSS_CAP, MAX_STEPS = 0.2, 32.0, 161
RANGE = 7.0
MAX_BLOCK = 1 << 16


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def f32_bits(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def blocks(length):
    start = 0
    while start < length:
        size = min(MAX_BLOCK, 1 << ((length - start).bit_length() - 1))
        yield start, size
        start += size


def hadamard(values):
    """The unnormalised transform of a power of two of values, every sum rounded to f32."""
    if len(values) == 1:
        return values
    # Neighbours first, as the order of rounding must be that of the protocol.
    pairs = list(zip(values[0::2], values[1::2]))
    plus = hadamard([f32(a + b) for a, b in pairs])
    minus = hadamard([f32(a - b) for a, b in pairs])
    return [value for pair in zip(plus, minus) for value in pair]


def flip_signs(open_digest, values):
    seed = derive("fedlora 1 rotation signs", open_digest)
    stream = words(seed, (len(values) + 31) // 32)
    return [
        -value if stream[place // 32] >> (place % 32) & 1 else value
        for place, value in enumerate(values)
    ]


def transform(values):
    return [
        value
        for start, size in blocks(len(values))
        for value in hadamard(values[start : start + size])
    ]


def unit(bits, weights):
    return ((1 << (bits - 1)) - 1 - len(weights)) / sum(weights)


def lane_scale(bits, clip, weights, size, weight):
    root = math.sqrt(size)
    reach = clip * min(RANGE / root, 1.0)
    return weight * unit(bits, weights) / (reach * root)


def loss_steps(loss, shift):
    steps = math.floor(min(loss, LOSS_CAP) / LOSS_STEP + shift / 4294967296.0)
    return min(steps, MAX_STEPS)


def encode(bits, clip, weights, open_digest, delta, weight, losses, shift, told, rounding):
    rotated = transform(flip_signs(open_digest, delta))
    stream = words(rounding, len(delta))
    share = weight * unit(bits, weights)
    lanes = []
    for start, size in blocks(len(delta)):
        scale = lane_scale(bits, clip, weights, size, weight)
        for place in range(start, start + size):
            value = max(-share, min(share, rotated[place] * scale))
            lanes.append(math.floor(value + stream[place] / 4294967296.0) % (1 << bits))
    return lanes + [loss_steps(loss, shift) for loss in losses] + [int(one) for one in told]


def lift(bits, lane):
    return lane - (1 << bits) if lane >> (bits - 1) else lane


def decode(bits, clip, weights, open_digest, lanes):
    """The mean where all members survive."""
    coordinates, auxiliary = lanes[:-4], [lift(bits, lane) for lane in lanes[-4:]]
    values = []
    for start, size in blocks(len(coordinates)):
        scale = 1.0 / (lane_scale(bits, clip, weights, size, sum(weights)) * size)
        values += [f32(lift(bits, lane) * scale) for lane in coordinates[start : start + size]]
    mean = flip_signs(open_digest, transform(values))
    told = len(weights) >= 5
    loss = [f32_bits(f32(steps * LOSS_STEP / len(weights))) for steps in auxiliary[:2]]
    return {
        "delta": [f32_bits(value) for value in mean],
        "train_loss": loss[0] if told else None,
        "eval_loss": loss[1] if told else None,
        "clipped": auxiliary[2] if told else None,
        "votes": auxiliary[3] if told else None,
    }


# Shamir over GF(256), polynomial x^8 + x^4 + x^3 + x^2 + 1, as the blahaj crate has it.


def gf_multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11D
        b >>= 1
    return product


def gf_inverse(a):
    result = 1
    for _ in range(254):
        result = gf_multiply(result, a)
    return result


def evaluate(coefficients, x):
    """Horner's rule; `coefficients` from the constant upwards."""
    value = 0
    for coefficient in reversed(coefficients):
        value = gf_multiply(value, x) ^ coefficient
    return value


def interpolate_at_zero(points):
    secret = 0
    for x, y in points:
        basis = 1
        for other, _ in points:
            if other != x:
                basis = gf_multiply(basis, gf_multiply(other, gf_inverse(other ^ x)))
        secret ^= gf_multiply(y, basis)
    return secret


# The ring of neighbours, and the groups.


def shuffle(members, context, beacon):
    """The member at each place: a Fisher-Yates shuffle that reads two bytes a try."""
    stream = blake3(beacon, derive_key_context=context).digest(length=16 * members)
    tries = iter(struct.unpack(f"<{8 * members}H", stream))
    order = list(range(members))
    for last in range(members - 1, 0, -1):
        mask = (1 << last.bit_length()) - 1
        drawn = next(value for word in tries if (value := word & mask) <= last)
        order[last], order[drawn] = order[drawn], order[last]
    return order


def neighbours(order, reach):
    """The neighbours of each member, ascending."""
    lists = [None] * len(order)
    for place, member in enumerate(order):
        steps = [*range(-reach, 0), *range(1, reach + 1)]
        lists[member] = sorted(order[(place + step) % len(order)] for step in steps)
    return lists


# The Merkle tree, by levels: where a level is odd, its last node goes up as it is, which gives
# the shape of RFC 9162.


def merkle_levels(leaves):
    levels = [[derive("fedlora 2 merkle leaf", leaf) for leaf in leaves]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        level = [
            derive("fedlora 2 merkle node", left + right)
            for left, right in zip(below[0::2], below[1::2])
        ]
        levels.append(level + below[len(level) * 2 :])
    return levels


def merkle_root(leaves):
    return derive("fedlora 2 merkle root", number(len(leaves)) + merkle_levels(leaves)[-1][0])


def merkle_proof(leaves, place):
    siblings = []
    for level in merkle_levels(leaves)[:-1]:
        if place ^ 1 < len(level):
            siblings.append(level[place ^ 1])
        place >>= 1
    return siblings


# The vectors.


def mask_expansion():
    return [
        {"seed": seed.hex(), "words": words(seed, 9)}
        for seed in (bytes(32), fixed_bytes("expansion"))
    ]


def agreement():
    vectors = []
    for suite in (CLASSICAL, HYBRID):
        one, two = (KeyPair(fixed_bytes(f"root {k} {suite}"), suite) for k in (1, 2))
        binding = fixed_bytes("agreement binding")
        ciphertext, seed = one.initiate(two, "fedlora test agreement", binding)
        assert seed == two.respond(one, ciphertext, "fedlora test agreement", binding)
        vectors.append({
            "suite": suite,
            "initiator_root": one.root.hex(),
            "responder_root": two.root.hex(),
            "initiator_public": derive("fedlora test public", one.encoded()).hex(),
            "responder_public": derive("fedlora test public", two.encoded()).hex(),
            "binding": binding.hex(),
            "encapsulation": derive("fedlora test encapsulation", framed(ciphertext)).hex(),
            "seed": seed.hex(),
        })
    return vectors


def masking():
    """Whole uploads: encoded, masked and packed, and what their sum decodes to."""
    vectors = []
    clip = 0.5
    transcript = fixed_bytes("masking transcript")
    for bits, members, length in ((20, 3, 7), (24, 5, 203), (32, 3, 65)):
        weights = [1 << (member % 3) for member in range(members)]
        pairs = [KeyPair(fixed_bytes(f"mask root {k}"), CLASSICAL) for k in range(members)]
        digests = [fixed_bytes(f"keys digest {k}") for k in range(members)]
        open_digest = fixed_bytes(f"masking open {bits}")
        delta = [(k * 5 % 11) / 11 - 0.45 for k in range(length)]
        norm = math.sqrt(sum(x * x for x in delta))
        total = [0] * (length + 4)
        uploads = []
        for me in range(members):
            losses = [f32(1.25 + me), f32(2.5 - me / 8)]
            rounding = fixed_bytes(f"rounding {bits} {me}")
            shift = fixed_bytes(f"shift {bits} {me}", 4)
            own = fixed_bytes(f"self-mask {bits} {me}")
            values = [f32(x / norm * clip * 0.99 / (me + 1)) for x in delta]
            lanes = encode(
                bits, clip, weights, open_digest, values, weights[me], losses,
                struct.unpack("<I", shift)[0], (me == 1, me % 2 == 0), rounding,
            )
            total = [(a + b) % (1 << bits) for a, b in zip(total, lanes)]
            masked = add_mask(lanes, own, 1, bits)
            for peer in range(members):
                if peer != me:
                    low, high = sorted((me, peer))
                    _, seed = mask_seed(
                        pairs[low], pairs[high], transcript, digests[low], digests[high]
                    )
                    masked = add_mask(masked, seed, 1 if me < peer else -1, bits)
            uploads.append({
                "delta": [f32_bits(x) for x in values],
                "weight_class": me % 3,
                "train_loss": f32_bits(losses[0]),
                "eval_loss": f32_bits(losses[1]),
                "loss_shift": shift.hex(),
                "clipped": me == 1,
                "worse": me % 2 == 0,
                "rounding_seed": rounding.hex(),
                "lanes": lanes,
                "self_mask": own.hex(),
                "self_mask_commitment": derive(
                    "fedlora 1 self-mask seed commitment", own
                ).hex(),
                "mask_root": pairs[me].root.hex(),
                "keys_digest": digests[me].hex(),
                "packed": pack(bits, masked).hex(),
                "vector_digest": blake3(pack(bits, masked)).hexdigest(),
            })
        vectors.append({
            "bits": bits,
            "clip": clip,
            "open_digest": open_digest.hex(),
            "transcript": transcript.hex(),
            "uploads": uploads,
            "sum": total,
            "decoded": decode(bits, clip, weights, open_digest, total),
        })
    return vectors


def sign(identity, digest):
    return Ed25519PrivateKey.from_private_bytes(identity).sign(digest)


def member_set(members):
    """The bitmap, lowest bit first, without zero bytes at its end."""
    bits = sum(1 << member for member in members)
    return framed(bits.to_bytes((bits.bit_length() + 7) // 8, "little"))


def round_messages():
    """Every digest and signature of one round, M0 to M6, in the hybrid suite."""
    digests = {
        name: fixed_bytes(f"open {name}")
        for name in ("previous", "roster", "adapter", "plan", "layout")
    }
    run = fixed_bytes("run", 16)
    opening = {
        "suite": HYBRID, "round": 3, "attempt": 2, "factors": 1, "clip": 0.5, "bits": 24,
        "neighbours": 12, "threshold": 7, "confirmations": 53, "minimum": 8,
    }
    open_digest = derive(
        "fedlora 2 M0 open",
        number(opening["suite"]) + run + number(opening["round"])
        + number(opening["attempt"]) + digests["previous"] + digests["roster"]
        + digests["adapter"] + digests["plan"] + digests["layout"]
        + number(opening["factors"]) + number(f32_bits(opening["clip"]))
        + number(opening["bits"]) + number(opening["neighbours"])
        + number(opening["threshold"]) + number(opening["confirmations"])
        + number(opening["minimum"]),
    )
    me, peer, dropped = 2, 9, 40
    identity = fixed_bytes("identity")
    # The beacon.
    nonces = {member: fixed_bytes(f"nonce {member}", 16) for member in (me, dropped)}
    commitments = {
        member: derive("fedlora 2 beacon commitment", open_digest + number(member) + nonce)
        for member, nonce in nonces.items()
    }
    all_commitments = derive(
        "fedlora 2 beacon commitments",
        open_digest + number(len(commitments))
        + b"".join(number(member) + commitments[member] for member in commitments),
    )
    opened = derive(
        "fedlora 2 beacon opening", open_digest + number(me) + all_commitments + nonces[me]
    )
    beacon = derive("fedlora 2 beacon", all_commitments + nonces[me] + nonces[dropped])
    # M1.
    context = derive("fedlora 2 keys context", open_digest + all_commitments)
    classes = {me: 9, peer: 3, dropped: 0}
    sealing = {k: KeyPair(fixed_bytes(f"sealing root {k}"), HYBRID) for k in classes}
    masking = {k: KeyPair(fixed_bytes(f"masking root {k}"), HYBRID) for k in classes}
    revealed = 2

    def keys_digest(member):
        return derive(
            "fedlora 2 M1 keys",
            context + number(member) + sealing[member].encoded() + masking[member].encoded()
            + number(classes[member]) + number(revealed),
        )

    transcript = derive(
        "fedlora 2 cohort transcript",
        context + member_set(classes) + number(len(classes))
        + b"".join(number(classes[member]) for member in classes) + beacon,
    )
    # M2: from the lower of the two, so that it encapsulates for the mask too.
    binding = pair_binding(transcript, keys_digest(me), keys_digest(peer))
    mask_ciphertext, mask = mask_seed(
        masking[me], masking[peer], transcript, keys_digest(me), keys_digest(peer)
    )
    direction = derive("fedlora 2 seal direction", binding + number(me) + number(peer))
    seal_context = "fedlora 2 share sealing key"
    seal_ciphertext, seal = sealing[me].initiate(sealing[peer], seal_context, direction)
    assert seal == sealing[peer].respond(sealing[me], seal_ciphertext, seal_context, direction)
    key = derive("fedlora 2 share sealing key with mask seed", seal + mask)

    def commit(holder, kind, share):
        fields = transcript + number(me) + number(holder) + number(kind) + share
        return derive("fedlora 2 share commitment", fields)[:16]

    shares = {member: (fixed_bytes(f"seed share {member}"), fixed_bytes(f"root share {member}"))
              for member in (me, peer)}
    committed = {
        member: commit(member, 0, pair[0]) + commit(member, 1, pair[1])
        for member, pair in shares.items()
    }
    beside = derive(
        "fedlora 2 beside sealed shares", committed[peer] + framed(mask_ciphertext)
    )
    associated = derive("fedlora 2 M2 sealed shares", direction + beside)
    sealed = ChaCha20Poly1305(key).encrypt(bytes(12), b"".join(shares[peer]), associated)
    self_mask = derive("fedlora 1 self-mask seed commitment", fixed_bytes("self-mask"))
    deal = derive(
        "fedlora 2 M2 deal",
        transcript + number(me) + self_mask + committed[me] + number(1)
        + number(peer) + framed(sealed) + committed[peer] + framed(seal_ciphertext)
        + framed(mask_ciphertext),
    )
    held = derive(
        "fedlora 2 M2 held shares",
        transcript + number(peer) + number(1) + number(me) + committed[peer],
    )
    # M3 and M4.
    vectors = {member: fixed_bytes(f"vector {member}") for member in (me, peer)}
    dealers = derive("fedlora 3 M2 dealers", transcript + member_set(classes))
    claim = derive(
        "fedlora 3 M3 masked update", open_digest + number(me) + vectors[me] + dealers
    )
    leaves = [
        derive("fedlora 2 survivor", number(member) + vector)
        for member, vector in vectors.items()
    ]
    list_digest = derive(
        "fedlora 3 M4 survivors",
        dealers + member_set(vectors) + merkle_root(leaves),
    )
    confirmation = derive(
        "fedlora 1 M4 confirmation", open_digest + number(me) + list_digest
    )
    # M5: a survivor's seed, a dropped member's root.
    revealed_shares = {me: (0, shares[peer][0]), dropped: (1, shares[peer][1])}
    reveal = derive(
        "fedlora 2 M5 reveal",
        open_digest + number(peer) + list_digest + number(len(revealed_shares))
        + b"".join(
            number(owner) + number(kind) + share
            for owner, (kind, share) in revealed_shares.items()
        ),
    )
    # M6.
    lanes = words(fixed_bytes("sum lanes"), 70000)
    ring_sum = derive(
        "fedlora 2 ring sum", number(len(lanes)) + struct.pack(f"<{len(lanes)}I", *lanes)
    )
    adapter, total = fixed_bytes("next adapter"), (1 << 9) + (1 << 3)
    round_transcript = derive("fedlora 1 round transcript", transcript + list_digest)
    losses = {"train_loss": f32_bits(1.5), "eval_loss": f32_bits(2.25), "clipped": 1, "votes": 2}
    members = b"".join(struct.pack("<H", member) for member in (me, peer))
    result = derive(
        "fedlora 3 M6 result",
        run + number(opening["round"]) + number(opening["attempt"]) + adapter + ring_sum
        + number(total) + round_transcript + digests["previous"] + framed(members)
        + framed(struct.pack("<H", dropped))
        + b"".join(number(value) for value in losses.values()),
    )
    result_signed = derive("fedlora 1 M6 signature", digests["previous"] + result)
    public = Ed25519PrivateKey.from_private_bytes(identity).public_key().public_bytes(*RAW)
    return {
        "identity": identity.hex(),
        "identity_public": public.hex(),
        "run": run.hex(),
        **{name: digest.hex() for name, digest in digests.items()},
        **opening,
        "open_digest": open_digest.hex(),
        "nonces": {member: nonce.hex() for member, nonce in nonces.items()},
        "commitments_digest": all_commitments.hex(),
        "opened_digest": opened.hex(),
        "beacon": beacon.hex(),
        "classes": classes,
        "revealed": revealed,
        "sealing_roots": {member: pair.root.hex() for member, pair in sealing.items()},
        "masking_roots": {member: pair.root.hex() for member, pair in masking.items()},
        "keys_digests": {member: keys_digest(member).hex() for member in classes},
        "transcript": transcript.hex(),
        "mask_seed": mask.hex(),
        "shares": {member: [share.hex() for share in pair] for member, pair in shares.items()},
        "sealed": sealed.hex(),
        "deal_digest": deal.hex(),
        "deal_signature": sign(identity, deal).hex(),
        "held_digest": held.hex(),
        "vectors": {member: vector.hex() for member, vector in vectors.items()},
        "claim_digest": claim.hex(),
        "list_digest": list_digest.hex(),
        "confirmation_digest": confirmation.hex(),
        "reveal_digest": reveal.hex(),
        "sum_seed": fixed_bytes("sum lanes").hex(),
        "sum_lanes": len(lanes),
        "sum_digest": ring_sum.hex(),
        "next_adapter": adapter.hex(),
        "total_weight": total,
        **losses,
        "result_digest": result.hex(),
        "result_signed": result_signed.hex(),
    }


def plan_digest():
    """The plan of `plan.json`, whose bytes are what the program hashes."""
    text = pathlib.Path(__file__).with_name("plan.json").read_bytes().rstrip()
    return {"digest": derive("fedlora 1 run plan", text).hex()}


def shamir():
    threshold, holders = 4, 7
    secret = fixed_bytes("shamir secret")
    higher = [fixed_bytes(f"coefficient {k}") for k in range(1, threshold)]
    columns = [[secret[k], *(c[k] for c in higher)] for k in range(32)]
    shares = [
        bytes(evaluate(column, place + 1) for column in columns)
        for place in range(holders)
    ]
    chosen = [1, 2, 4, 6]
    again = bytes(
        interpolate_at_zero([(place + 1, shares[place][k]) for place in chosen])
        for k in range(32)
    )
    assert again == secret
    return {
        "threshold": threshold,
        "secret": secret.hex(),
        "shares": [share.hex() for share in shares],
        "chosen": chosen,
    }


def roster_words():
    """Argon2id of the roster's digest, 11 bits a word of the BIP-39 English list."""
    salt, memory_kib, passes = b"fedlora 1 roster words", 64 * 1024, 3
    wordlist = Mnemonic("english").wordlist
    rosters = []
    for label in ("one roster", "another roster"):
        digest = fixed_bytes(label)
        raw = hash_secret_raw(digest, salt, passes, memory_kib, 1, 11, Type.ID, version=0x13)
        bits = f"{int.from_bytes(raw, 'big'):088b}"
        words = [wordlist[int(bits[k : k + 11], 2)] for k in range(0, 88, 11)]
        rosters.append({"digest": digest.hex(), "words": words})
    return rosters


def graph():
    """Whole neighbour lists as one digest, and those of some members as they are."""
    vectors = []
    for members, degree in ((100, 12), (1000, 34)):
        beacon = fixed_bytes(f"beacon {members}")
        order = shuffle(members, "fedlora 2 neighbour ring", beacon)
        lists = neighbours(order, degree // 2)
        assert all(member in lists[other] for member in order for other in lists[member])
        whole = b"".join(number(other) for row in lists for other in row)
        vectors.append({
            "members": members,
            "neighbours": degree,
            "beacon": beacon.hex(),
            "digest": derive("fedlora test neighbour lists", whole).hex(),
            "lists": {member: lists[member] for member in (0, 1, order[0], members - 1)},
        })
    return vectors


def groups():
    """The group of each member: the place in the shuffled order, modulo their number."""
    vectors = []
    for members, count in ((9, 3), (64, 7)):
        beacon = fixed_bytes(f"groups {members}")
        order = shuffle(members, "fedlora 2 mask groups", beacon)
        of = [order.index(member) % count for member in range(members)]
        vectors.append({"members": members, "count": count, "beacon": beacon.hex(), "of": of})
    return vectors


def group_sums():
    """The digest of the sums of groups 0 and 2 of a round."""
    sums = {0: [1, 2, 2**24 - 1], 2: [7, 0, 5]}
    data = number(len(sums))
    for group, lanes in sums.items():
        digest = derive(
            "fedlora 2 ring sum", number(len(lanes)) + struct.pack(f"<{len(lanes)}I", *lanes)
        )
        data += number(group) + digest
    return {
        "sums": [{"group": group, "lanes": lanes} for group, lanes in sums.items()],
        "digest": derive("fedlora 2 group sums", data).hex(),
    }


def merkle():
    vectors = []
    for count, place in ((1, 0), (2, 1), (7, 6), (13, 12), (35, 20)):
        leaves = [fixed_bytes(f"leaf {count} {k}") for k in range(count)]
        vectors.append({
            "leaves": [leaf.hex() for leaf in leaves],
            "root": merkle_root(leaves).hex(),
            "place": place,
            "proof": [sibling.hex() for sibling in merkle_proof(leaves, place)],
        })
    return vectors


def main():
    vectors = {
        "made_with": {name: version(name) for name in PACKAGES},
        "mask_expansion": mask_expansion(),
        "agreement": agreement(),
        "masking": masking(),
        "round": round_messages(),
        "plan": plan_digest(),
        "shamir": shamir(),
        "roster_words": roster_words(),
        "graph": graph(),
        "groups": groups(),
        "group_sums": group_sums(),
        "merkle": merkle(),
    }
    path = pathlib.Path(__file__).with_name("vectors.json")
    path.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
