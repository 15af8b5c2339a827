"""A reader of blocks that shares nothing with the program: written from docs/format/block.md and docs/format/chunk.md.

    block_reader.py DIR

Checks every checksum, that index and chunks say the same, and prints all that is in the block, line by line, as
`block_golden dump` does.
"""
import json
import os
import struct
import sys

M64 = (1 << 64) - 1


def crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


TABLE = crc_table()


def crc32c(*pieces):
    crc = 0xFFFFFFFF
    for piece in pieces:
        for byte in piece:
            crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def signed(v):
    v &= M64
    return v - (1 << 64) if v >> 63 else v


def unzigzag(v):
    return v >> 1 ^ -(v & 1)


class Bytes:
    def __init__(self, data, at=0, end=None):
        self.data, self.at, self.end = data, at, len(data) if end is None else end

    def take(self, count):
        assert self.at + count <= self.end, "bytes end early"
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                assert value <= M64
                return value

    def zigzag(self):
        return unzigzag(self.varint())

    def rest(self):
        return self.take(self.end - self.at)


# ---- docs/format/chunk.md ----


class Bits:
    def __init__(self, data):
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count):
        assert self.left >= count, "bits end early"
        self.left -= count
        return self.value >> self.left & ((1 << count) - 1)

    def signed(self, count):
        v = self.take(count)
        return v - (1 << count) if v >> (count - 1) else v

    def prefix(self, most):
        """How many ones before the first zero, at most `most`."""
        ones = 0
        while ones < most and self.take(1):
            ones += 1
        return ones

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(8)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value


STALE = 0x7FF0000000000002


class Values:
    """The baseline and the window of XORed values."""

    def __init__(self, bits, first):
        self.bits, self.window = bits, None
        self.baseline = 0 if first == STALE else first

    def xor(self, new):
        if new:
            leading, width = self.bits.take(5), self.bits.take(6) or 64
            assert leading + width <= 64
            self.window = leading, width
        assert self.window, "a window is used before it is set"
        leading, width = self.window
        self.baseline ^= self.bits.take(width) << (64 - leading - width)
        return self.baseline

    def v(self):
        ones = self.bits.prefix(3)
        if ones == 0:
            return self.baseline
        return STALE if ones == 3 else self.xor(ones == 2)


def varbit(bits):
    ones = bits.prefix(8)
    if ones == 0:
        return 0
    if ones == 8:
        return signed(bits.take(64))
    width = [3, 6, 9, 12, 18, 25, 56][ones - 1]
    v = bits.take(width)
    return v - (1 << width) if v > 1 << (width - 1) else v


def decode(data, count, start_byte):
    bits = Bits(data)
    time = unzigzag(bits.varint())
    value = bits.take(64)
    start = signed(time - unzigzag(bits.varint())) if start_byte & 128 else 0
    values = Values(bits, value)
    samples = [(time, value, start)]
    changed, delta, start_delta = start_byte & 127, 0, 0
    for i in range(1, count):
        previous = time
        if i == 1:
            delta = bits.varint()
            value = values.v()
        else:
            ones = bits.prefix(5)
            dod = 0
            if ones == 0:
                value = values.baseline
            elif ones == 1:
                value = values.xor(bits.take(1))
            elif ones == 5:
                value = STALE
            else:
                dod = bits.signed({2: 13, 3: 20, 4: 64}[ones])
                value = values.v()
            delta = signed(delta + dod)
        time = signed(time + delta)
        if changed and i >= changed:
            number = varbit(bits)
            start_delta = number if i == changed else signed(start_delta + number)
            start = signed(previous - start_delta)
        samples.append((time, value, start))
    assert bits.left < 8, "bytes are left over"
    return samples


# ---- chunks ----


class Chunks:
    def __init__(self, data):
        self.data = data
        assert data[:8] == b"TDLTBLK\n"
        self.version, self.level, self.salt, self.id, self.time_base, self.position_base = struct.unpack_from(
            "<IIQQqQ", data, 8)
        assert self.version == 1
        assert struct.unpack_from("<I", data, 60)[0] == crc32c(data[:60])

    def sum(self, offset, kind, piece):
        return crc32c(struct.pack("<QQII", self.salt, offset, len(piece), kind), piece)

    def check(self, crc_at, offset, kind, begin, end):
        assert struct.unpack_from("<I", self.data, crc_at)[0] == self.sum(offset, kind, self.data[begin:end]), \
            "checksum of kind %d at %d" % (kind, offset)

    def record(self, offset, length):
        self.check(offset, offset, 3, offset + 4, offset + length)
        bytes_ = Bytes(self.data, offset + 6, offset + length)
        first = signed(self.time_base + bytes_.zigzag())
        last = signed(first + bytes_.varint())
        position = (self.position_base + bytes_.zigzag()) & M64
        count, start_byte = self.data[offset + 4:offset + 6]
        samples = decode(bytes_.rest(), count, start_byte)
        assert len(samples) == count and samples[0][0] == first and samples[-1][0] == last
        return {"offset": offset, "length": length, "first": first, "last": last, "position": position, "samples": samples}

    def run(self, offset):
        assert self.data[offset:offset + 4] == b"\nRUN"
        body = struct.unpack_from("<I", self.data, offset + 8)[0]
        end = offset + 12 + body
        self.check(offset + 4, offset, 1, offset + 8, end)
        head = Bytes(self.data, offset + 12, end)
        ordinal, id_, count, table_bytes, data_bytes, label_bytes = (head.varint() for _ in range(6))
        labels = head.take(label_bytes)
        assert head.at == end
        self.check(end, end, 2, end + 4, end + table_bytes)
        table = Bytes(self.data, end + 4, end + table_bytes)
        lengths = [table.varint() for _ in range(count)]
        assert table.at == table.end and sum(lengths) == data_bytes
        at = data = end + table_bytes
        records = []
        for length in lengths:
            records.append(self.record(at, length))
            at += length
        behind = (at + 7) // 8 * 8
        assert not any(self.data[at:behind])
        return {"offset": offset, "ordinal": ordinal, "id": id_, "labels": labels, "data": data, "chunks": records}, behind

    def trailer(self, offset):
        data = self.data
        length, = struct.unpack_from("<I", data, offset + 8)
        assert data[offset:offset + 8] == b"TDLTEND\n" and offset + length == len(data)
        self.check(offset + 12, offset, 4, offset + 16, len(data))
        assert data[offset + 16:offset + 80] == data[:64]
        sums = struct.unpack_from("<QQQqqQQQ", data, offset + 80)
        sources = struct.unpack_from("<%dQ" % sums[7], data, offset + 144)
        assert offset + 144 + 8 * sums[7] == len(data)
        return sums[:7], list(sources)

    def read(self):
        runs, offset = [], 64
        while self.data[offset:offset + 8] != b"TDLTEND\n":
            run, offset = self.run(offset)
            runs.append(run)
        return runs, self.trailer(offset)


def labels_of(data):
    bytes_, labels = Bytes(data), []
    while bytes_.at < bytes_.end:
        assert bytes_.take(1) == b"\n"
        pair = Bytes(bytes_.take(bytes_.varint()))
        assert pair.take(1) == b"\n"
        name = pair.take(pair.varint())
        assert pair.take(1) == b"\x12"
        labels.append((name, pair.take(pair.varint())))
        assert pair.at == pair.end
    assert labels == sorted(labels)
    return labels


def order_of(data):
    return crc32c(dict(labels_of(data))[b"__name__"]) >> 26, data


# ---- index.mdb: as much of LMDB's file format as it takes to walk over a table ----


class Lmdb:
    PAGE = 4096

    def __init__(self, data):
        self.data = data
        metas = []
        for page in 0, 1:
            magic, version = struct.unpack_from("<II", data, page * self.PAGE + 16)
            assert magic == 0xBEEFC0DE and version == 1
            metas.append((struct.unpack_from("<Q", data, page * self.PAGE + 16 + 24 + 96 + 8)[0], page))
        at = max(metas)[1] * self.PAGE + 16 + 24 + 48
        self.tables = dict(self.walk(struct.unpack_from("<Q", data, at + 40)[0]))

    def walk(self, page):
        if page == M64:
            return
        base = page * self.PAGE
        flags, lower = struct.unpack_from("<HH", self.data, base + 10)
        for i in range((lower - 16) // 2):
            at = base + struct.unpack_from("<H", self.data, base + 16 + 2 * i)[0]
            low, high, node_flags, key_bytes = struct.unpack_from("<HHHH", self.data, at)
            if flags & 1:  # a branch
                yield from self.walk(low | high << 16 | node_flags << 32)
                continue
            size = low | high << 16
            key = self.data[at + 8:at + 8 + key_bytes]
            at += 8 + key_bytes
            if node_flags & 1:  # on pages of its own
                at = struct.unpack_from("<Q", self.data, at)[0] * self.PAGE + 16
            yield key, self.data[at:at + size]

    def table(self, name):
        root, = struct.unpack_from("<Q", self.tables[name.encode()], 40)
        return list(self.walk(root))


def postings(data):
    bytes_, ordinals, behind = Bytes(data), [], 0
    while bytes_.at < bytes_.end:
        item = bytes_.varint()
        length = bytes_.varint() + 2 if item & 1 else 1
        first = behind + (item >> 1)
        behind = first + length
        ordinals.extend(range(first, behind))
    return ordinals


def texts(page, tail):
    bytes_ = Bytes(page)
    first, count = bytes_.varint(), bytes_.varint()
    text, out = b"", []
    for i in range(count):
        shared = bytes_.varint()
        text = text[:shared] + bytes_.take(bytes_.varint())
        out.append((first + i, text, tail(bytes_)))
    assert bytes_.at == bytes_.end
    return out


class Index:
    def __init__(self, data, sums, salt):
        self.check(data, sums, salt)
        db = Lmdb(data)
        info = dict(db.table("info"))[b"info"]
        version, info_salt = struct.unpack_from("<IQ", info)
        assert version == 1 and info_salt == salt and len(info) == 76 + 4 * 65
        self.numbers = struct.unpack_from("<8Q", info, 12)
        self.shards = struct.unpack_from("<65I", info, 76)
        self.pieces = {}
        for table in "postings", "present":
            for key, value in db.table(table):
                number, last = struct.unpack(">II", key)
                ordinals = postings(value)
                assert ordinals[-1] == last
                self.pieces.setdefault((table, number), []).extend(ordinals)
        self.value_pages = [value for _, value in db.table("values")]
        self.names = [name for _, page in db.table("names") for name in texts(page, self.name_tail)]
        self.series = {}
        for key, group in db.table("series"):
            self.group(group)
            assert max(self.series) == struct.unpack(">I", key)[0]

    @staticmethod
    def check(data, sums, salt):
        assert sums[:8] == b"TDLTSUM\n"
        version, page_bytes, sum_salt, pages, crc, zero = struct.unpack_from("<IIQQII", sums, 8)
        assert (version, page_bytes, sum_salt, zero) == (1, 4096, salt, 0)
        assert crc == crc32c(sums[:32], sums[40:])
        assert len(data) == pages * 4096 and len(sums) == 40 + 4 * pages
        for page in range(pages):
            assert struct.unpack_from("<I", sums, 40 + 4 * page)[0] == crc32c(
                struct.pack("<QQ", salt, page), data[4096 * page:4096 * page + 4096]), "page %d" % page

    @staticmethod
    def name_tail(bytes_):
        return [bytes_.varint() for _ in range(6)]

    @staticmethod
    def value_tail(bytes_):
        return bytes_.varint(), bytes_.take(bytes_.varint())

    def values_of(self, name):
        """(value, ordinals) of a name, and the ordinals that have it."""
        number, _, (page_first, page_count, pair_first, pair_count, series, present) = name
        out, union = [], set()
        for page in self.value_pages[page_first:page_first + page_count]:
            for pair, text, (count, inline) in texts(page, self.value_tail):
                assert pair == pair_first + len(out)
                ordinals = postings(inline) if inline else self.pieces["postings", pair]
                assert len(ordinals) == count
                out.append((text, ordinals))
                union.update(ordinals)
        assert len(out) == pair_count and len(union) == series
        if present == 1:
            assert self.pieces["present", number] == sorted(union)
        if present == 2:
            assert self.all() == sorted(union)
        return out, sorted(union)

    def all(self):
        return self.pieces.get(("postings", 0xFFFFFFFF), [])

    def group(self, data):
        bytes_ = Bytes(data)
        ordinal, count, base = bytes_.varint(), bytes_.varint(), bytes_.varint() * 8
        base_time, base_span, base_gap = bytes_.zigzag(), bytes_.varint(), bytes_.varint()
        for i in range(count):
            entry = Bytes(bytes_.take(bytes_.varint()))
            id_, offset = entry.varint(), base + 8 * entry.varint()
            at = data_at = offset + entry.varint()
            chunks, expected = [], base_time
            for _ in range(entry.varint()):
                length = entry.varint()
                first = signed(expected + entry.zigzag())
                last = signed(first + base_span + entry.zigzag())
                chunks.append((at, length, first, last))
                at += length
                expected = last + base_gap
            assert entry.at == entry.end
            self.series[ordinal + i] = id_, offset, data_at, chunks
        assert bytes_.at == bytes_.end


# ---- all of it ----


def read(dir_, name):
    with open(os.path.join(dir_, name), "rb") as file:
        return file.read()


def check_meta(text, chunks, trailer, files):
    meta = json.loads(text)
    begin = text.rindex(b'  "crc32c": ')
    assert int(meta["crc32c"], 16) == crc32c(text[:begin])
    sums, sources = trailer
    assert meta["format"] == 1 and meta["level"] == chunks.level
    assert (int(meta["block"]), int(meta["salt"], 16)) == (chunks.id, chunks.salt)
    assert (meta["time_base_ms"], int(meta["position_base"], 16)) == (chunks.time_base, chunks.position_base)
    assert (meta["series"], meta["chunks"], meta["samples"], meta["time_min_ms"], meta["time_max_ms"],
            int(meta["position_min"], 16), int(meta["position_max"], 16)) == sums
    assert [int(source) for source in meta["sources"]] == sources
    assert set(meta["files"]) == set(files)
    for name, data in files.items():
        assert meta["files"][name] == {"bytes": len(data), "crc32c": "%08x" % crc32c(data)}, name


def check_index(index, runs):
    assert index.numbers[:3] == (len(runs), len(runs), sum(len(run["chunks"]) for run in runs))
    assert index.numbers[3] == sum(len(labels_of(run["labels"])) for run in runs)
    assert set(index.series) == set(range(len(runs)))
    shards = [order_of(run["labels"])[0] for run in runs]
    for shard in range(65):
        assert index.shards[shard] == sum(s < shard for s in shards)
    for run in runs:
        chunks = [(c["offset"], c["length"], c["first"], c["last"]) for c in run["chunks"]]
        assert index.series[run["ordinal"]] == (run["id"], run["offset"], run["data"], chunks)
    assert index.all() == list(range(len(runs)))


def main(dir_):
    files = {name: read(dir_, name) for name in ("chunks", "index.mdb", "index.sum")}
    chunks = Chunks(files["chunks"])
    runs, trailer = chunks.read()
    check_meta(read(dir_, "meta.json"), chunks, trailer, files)
    index = Index(files["index.mdb"], files["index.sum"], chunks.salt)
    check_index(index, runs)
    assert [run["ordinal"] for run in runs] == list(range(len(runs)))
    orders = [order_of(run["labels"]) for run in runs]
    assert all(a < b for a, b in zip(orders, orders[1:]))

    sums, sources = trailer
    print("block id=%d level=%d salt=%016x" % (chunks.id, chunks.level, chunks.salt))
    print("times %d %d" % (sums[3], sums[4]))
    print("counts series=%d chunks=%d samples=%d" % sums[:3])
    print("positions %016x %016x" % sums[5:])
    print(" ".join(["sources"] + ["%d" % source for source in sources]))
    for run in runs:
        print("series %d id=%d %s" % (run["ordinal"], run["id"], run["labels"].hex()))
        for chunk in run["chunks"]:
            print("chunk %d %d position=%016x samples=%d" % (chunk["first"], chunk["last"], chunk["position"],
                                                             len(chunk["samples"])))
            for sample in chunk["samples"]:
                print("%d %016x %d" % sample)
    all_pairs = {}
    for run in runs:
        for name, value in labels_of(run["labels"]):
            all_pairs.setdefault(name, {}).setdefault(value, []).append(run["ordinal"])
    assert [name[1] for name in index.names] == sorted(all_pairs)
    for name in index.names:
        values, ordinals = index.values_of(name)
        assert dict(values) == all_pairs[name[1]] and [v for v, _ in values] == sorted(all_pairs[name[1]])
        print("name %s series=%d:%s" % (name[1].hex(), len(ordinals), "".join(" %d" % o for o in ordinals)))
        for value, of in values:
            print("value %s series=%d:%s" % (value.hex(), len(of), "".join(" %d" % o for o in of)))


if __name__ == "__main__":
    main(sys.argv[1])
