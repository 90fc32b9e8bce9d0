-- What an aggregator keeps. Digests are BLAKE3 in hexadecimal, times milliseconds since the Unix epoch
-- by this database's clock.

-- One row: who may write. Each change counts the revision up.
CREATE TABLE lease (
    id       BIGINT PRIMARY KEY CHECK (id = 1),
    holder   TEXT   NOT NULL,
    host     TEXT   NOT NULL,
    expires  BIGINT NOT NULL,
    fence    BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
INSERT INTO lease (id, holder, host, expires, fence, revision) VALUES (1, '', '', 0, 0, 0);

-- At most one row: the federation whose directory this holds, by its authority's fingerprint.
CREATE TABLE federation (
    id        BIGINT PRIMARY KEY CHECK (id = 1),
    authority TEXT   NOT NULL
);

-- A file: its base, in the row itself or in an object, and the pieces that were appended to it.
CREATE TABLE file (
    path     TEXT COLLATE "C" PRIMARY KEY,
    length   BIGINT NOT NULL,
    base     BIGINT NOT NULL,
    digest   TEXT   NOT NULL,
    content  BYTEA  NOT NULL,
    object   TEXT   NOT NULL,
    private  BIGINT NOT NULL,
    written  BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE piece (
    path  TEXT COLLATE "C" NOT NULL,
    start BIGINT NOT NULL,
    bytes BYTEA  NOT NULL,
    PRIMARY KEY (path, start)
);

-- Objects that no file names: one that is being stored (gone = 0), or one to delete (gone = 1).
CREATE TABLE loose_object (
    object TEXT   PRIMARY KEY,
    fence  BIGINT NOT NULL,
    gone   BIGINT NOT NULL
);
