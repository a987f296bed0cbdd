import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deflateRawSync, deflateSync } from 'node:zlib';
import fc from 'fast-check';
import { textOf } from '../../../src/abi/text.ts';
import { parityOf } from '../../../src/crash/codec/reedsolomon.ts';
import { isPstore, pstoreLog, readPstore } from '../../../src/crash/pstore.ts';
import { persistent_ram_buffer } from '../../../src/crash/ramoops.ts';
import { FormatError } from '../../../src/errors.ts';

const bytes = (text: string) => Buffer.from(text);
const lines = (records: ReturnType<typeof readPstore>) =>
  pstoreLog(records).map(({ level, facility, time, text }) => [level, facility, time, textOf(text)]);

const newer = 'Panic#2 Part1\n<0>[   12.500000] Kernel panic - not syncing: x\n<6>[   13.000001][  T71] end\n';
const older = 'Panic#2 Part2\n<30>[    1.000000] systemd[1]: α\n<4>[   12.400000] stack:\n without a prefix\n';
const oops = 'Oops#1 Part1\n<4>[   12.400000] stack:\n<4>[   12.400000] stack:\n<1>[   12.450000] BUG: y\n';

test('parts are put together, the oldest first, and what two dumps hold is there once', () => {
  const records = [newer, oops, older].flatMap((text) => readPstore('dmesg-ramoops-0', bytes(text)));
  assert.deepEqual(lines(records), [
    [4, 0, 12_400_000_000n, 'stack:'],
    [4, 0, 12_400_000_000n, 'stack:'],
    [1, 0, 12_450_000_000n, 'BUG: y'],
    [6, 3, 1_000_000_000n, 'systemd[1]: α'],
    [4, 0, 12_400_000_000n, ' without a prefix'],
    [0, 0, 12_500_000_000n, 'Kernel panic - not syncing: x'],
    [6, 0, 13_000_001_000n, 'end'],
  ]);
  assert.deepEqual(pstoreLog(records).at(-1)!.caller, { kind: 'task', id: 71 });
});

test('packed files, with the header of zlib and without, and the notice of the kernel behind a text', () => {
  for (const pack of [deflateSync, deflateRawSync]) {
    const packed = pack(bytes(oops));
    assert.ok(isPstore('/x/dmesg-efi_pstore-1.enc.z', packed));
    assert.deepEqual(readPstore('dmesg-efi_pstore-1.enc.z', packed), [
      { reason: 'Oops', count: 1, part: 1, text: oops.slice(oops.indexOf('\n') + 1) },
    ]);
  }
  const noticed = readPstore('f', bytes(`${oops}\nECC: 3 Corrected bytes, 0 unrecoverable blocks\n`));
  assert.deepEqual(lines(noticed), lines(readPstore('f', bytes(oops))));
  assert.throws(() => readPstore('dmesg-x-1.enc.z', bytes('no stream')), FormatError);
  assert.throws(() => readPstore('f', bytes('no log')), FormatError);
  assert.ok(!isPstore('vmcore', bytes('KDUMP   ')) && !isPstore('f', new Uint8Array(0)));
});

/** A zone of ramoops, written to as the kernel does, a piece at a time (persistent_ram_write()). */
function zone(size: number, ...pieces: readonly Uint8Array[]): Buffer {
  const room = size - persistent_ram_buffer.size;
  const data = Buffer.alloc(room);
  let [start, filled] = [0, 0];
  for (const piece of pieces) {
    for (const byte of piece) {
      data[start] = byte;
      start = (start + 1) % room;
    }
    filled = Math.min(room, filled + piece.length);
  }
  const header = Buffer.alloc(persistent_ram_buffer.size);
  header.writeUInt32LE(0x43474244, 0);
  header.writeUInt32LE(start, 4);
  header.writeUInt32LE(filled, 8);
  return Buffer.concat([header, data]);
}

test("ramoops' memory: a zone for each dump, packed or not, and others", () => {
  const image = Buffer.concat([
    // Zones need not begin at a page.
    zone(9999, bytes('====1795246754.000001-D\n'), bytes(older)),
    zone(8192, bytes('====1795246754.000002-C\n'), deflateRawSync(bytes(newer))),
    zone(4096),
    zone(4096, bytes('the console has no header\n'.repeat(300))),
    // The log of a zone that is full to its last byte begins where it is written to next.
    zone(4096, bytes('====1.0-D\n'), bytes(oops.padEnd(4096 - 12 - 10, 'y'))),
    Buffer.alloc(4096, 0xff),
  ]);
  assert.ok(isPstore('ram', image));
  const records = readPstore('ram', image);
  assert.deepEqual(
    records.map(({ reason, part }) => [reason, part]),
    [
      ['Panic', 2],
      ['Panic', 1],
      ['Oops', 1],
    ],
  );
  assert.equal(lines(records).length, 8);
});

/** A zone with parity: persistent_ram_init_ecc(). */
function eccZone(size: number, parity: number, text: Uint8Array): Buffer {
  const blocks = Math.ceil((size - 12 - parity) / (128 + parity));
  const plain = zone(size - (blocks + 1) * parity, text);
  const parities = Array.from({ length: blocks }, (_, i) => {
    return parityOf(plain.subarray(12 + i * 128, 12 + (i + 1) * 128), parity);
  });
  return Buffer.concat([plain, ...parities, parityOf(plain.subarray(0, 12), parity)]);
}

test('what bits have tipped in ramoops is put right by its parity', () => {
  const text = bytes(`====1.000001-D\n${newer}${'<6>[   14.000000] and so on\n'.repeat(40)}`);
  const [record] = readPstore('ram', eccZone(8192, 16, text));
  assert.deepEqual(record!.ecc, { correctedBytes: 0, badBlocks: 0 });
  const image = Buffer.concat([eccZone(4096, 16, text), eccZone(8192, 16, text)]);
  // Of the second zone: its size, and eight bytes of the second block.
  for (const at of [4096 + 9, ...[0, 3, 5, 60, 61, 62, 63, 127].map((each) => 4096 + 12 + 128 + each)])
    image[at]! ^= 0xa5;
  const corrected = readPstore('ram', image);
  assert.deepEqual(
    corrected.map(({ ecc }) => ecc),
    [
      { correctedBytes: 0, badBlocks: 0 },
      { correctedBytes: 9, badBlocks: 0 },
    ],
  );
  assert.deepEqual(new Set(corrected.map((each) => each.text)), new Set([record!.text]));
  // Of three, also where the second is not known by its signature, and the parity of the last header would nearly do.
  const three = Buffer.concat([eccZone(7001, 16, text), eccZone(7001, 16, text), eccZone(7001, 16, bytes(''))]);
  for (const at of [0, 7001]) three[at]! ^= 0xff;
  assert.deepEqual(
    readPstore('ram', three, 1).map(({ text: each, ecc }) => [each, ecc]),
    Array(2).fill([record!.text, { correctedBytes: 1, badBlocks: 0 }]),
  );
  // A ninth is too many for that block, and another parity has to be named, as where the signature is hurt.
  image[4096 + 12 + 128 + 99]! ^= 1;
  assert.deepEqual(readPstore('ram', image)[1]!.ecc, { correctedBytes: 1, badBlocks: 1 });
  const other = eccZone(9999, 6, text);
  assert.equal(readPstore('ram', other)[0]!.ecc, undefined);
  other[0]! ^= 0xff;
  other[700]! ^= 0xff;
  assert.deepEqual(readPstore('ram', other, 6), [{ ...record!, ecc: { correctedBytes: 2, badBlocks: 0 } }]);
  assert.deepEqual(readPstore('f', bytes(`${newer}\nECC: 3 Corrected bytes, 2 unrecoverable blocks\n`))[0]!.ecc, {
    correctedBytes: 3,
    badBlocks: 2,
  });
});

test('any bytes are a log, or refused', () => {
  const text = bytes(newer);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(16_383), fc.nat(255)), { maxLength: 40 }), (changes) => {
      const image = Buffer.concat([
        zone(8192, bytes('====1.000001-D\n'), text),
        zone(8192, bytes('====1.000001-C\n'), deflateSync(text)),
      ]);
      for (const [at, value] of changes) image[at] = value;
      try {
        for (const { level } of pstoreLog(readPstore('ram', image))) assert.ok(level >= 0 && level < 8);
      } catch (error) {
        assert.ok(error instanceof FormatError, `${error}`);
      }
    }),
  );
});
