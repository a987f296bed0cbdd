import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFlaggedMaps, parseSmaps } from '../../../src/sys/maps.ts';

const SMAPS = `7f0000000000-7f0000002000 r--p 00001000 fe:00 77                         /usr/lib/a b.so
Size:                  8 kB
Rss:                   4 kB
THPeligible:           0
VmFlags: rd mr mw me sd
c0000000-c0001000 rw-s 00000000 00:01 5                          /dev/zero (deleted)
Size:                  4 kB
VmFlags: rd wr sh mr mw me ms nr
`;

test('mappings with their flags are those of the whole smaps', () => {
  const whole = parseSmaps(SMAPS, 'smaps').map(({ sizes: _, thpEligible: __, protectionKey: ___, ...rest }) => rest);
  assert.deepEqual(parseFlaggedMaps(SMAPS, 'smaps'), whole);
  assert.deepEqual([...parseFlaggedMaps(SMAPS, 'smaps')[1]!.flags].slice(0, 3), ['rd', 'wr', 'sh']);
});

test('flags without a mapping, and a mapping that is none, are refused', () => {
  assert.throws(() => parseFlaggedMaps('VmFlags: rd\n', 'smaps'), /a mapping/);
  assert.throws(() => parseFlaggedMaps('7f00-zz rw\n', 'smaps'), /a mapping/);
});
