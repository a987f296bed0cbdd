/** The purgatory's pieces that need no privilege run here, natively; the whole of it runs in test/lab. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { align, assemble, type Item } from '../../../src/asm/assemble.ts';
import { jmp, lea } from '../../../src/asm/instructions.ts';
import { label, mem, rsi } from '../../../src/asm/operands.ts';
import { PARAMETERS_OFFSET, PURGATORY_MAGIC, purgatory_parameters, REGIONS_MAX } from '../../../src/asm/parameters.ts';
import { copyBackup, hexDigits, purgatory } from '../../../src/asm/purgatory.ts';
import { sha256Code } from '../../../src/asm/sha256.ts';
import { chooseSha256, verifyRegions } from '../../../src/asm/verify.ts';
import { mapCode, Region } from '../../../src/sys/region.ts';

const entry = label('entry');

test('the parameter block stands where the specification says', () => {
  const block = purgatory_parameters.read(
    purgatory({ entry: 0x1000200, boot_params: 0x3000, serial_port: 0x3f8 }),
    PARAMETERS_OFFSET,
  );
  assert.equal(block.magic, PURGATORY_MAGIC);
  assert.equal(block.version, 1);
  assert.deepEqual([block.entry, block.boot_params, block.serial_port], [0x1000200, 0x3000, 0x3f8]);
  assert.deepEqual(purgatory_parameters.offsets, {
    ...{ magic: 0, version: 8, flags: 12, entry: 16, boot_params: 24, jump_back_text: 32 },
    ...{ backup_from: 40, backup_to: 48, backup_size: 56, serial_port: 64, region_count: 68, regions: 72 },
  });
});

test('more regions than the block has are refused', () => {
  const region = { start: 0, size: 0, sha256: new Uint8Array(32) };
  purgatory({ regions: Array(REGIONS_MAX).fill(region) });
  assert.throws(() => purgatory({ regions: Array(REGIONS_MAX + 1).fill(region) }), RangeError);
});

test('one copy does not see the parameters of another', () => {
  purgatory({ entry: 1 });
  assert.equal(purgatory_parameters.read(purgatory({}), PARAMETERS_OFFSET).entry, 0);
});

test('hex writes 16 digits and nothing beside them', () => {
  const { call } = mapCode(assemble(hexDigits(entry)).bytes, 2);
  const memory = new Region(4096);
  try {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), (value) => {
        memory.bytes.fill(0x2e, 0, 32);
        call(memory.address + 8, value);
        const written = Buffer.from(memory.bytes.subarray(0, 32)).toString();
        assert.equal(written, `........${value.toString(16).padStart(16, '0')}........`);
      }),
    );
  } finally {
    memory[Symbol.dispose]();
  }
});

test('backup copies what the parameters say', () => {
  const { call } = mapCode(assemble(copyBackup(entry)).bytes, 1);
  const memory = new Region(1 << 21);
  try {
    fc.assert(
      fc.property(fc.nat({ max: 640 * 1024 }), fc.nat({ max: 255 }), (size, seed) => {
        for (let i = 0; i < size; i++) memory.bytes[4096 + i] = i * 7 + seed;
        memory.bytes.fill(0, 1 << 20);
        const block = { backup_from: memory.address + 4096, backup_to: memory.address + (1 << 20), backup_size: size };
        purgatory_parameters.write(block, memory.bytes);
        call(memory.address);
        const [from, to] = [memory.bytes.subarray(4096), memory.bytes.subarray(1 << 20)];
        assert.equal(Buffer.compare(from.subarray(0, size), to.subarray(0, size)), 0);
        assert.equal(to[size], 0);
      }),
      { numRuns: 25 },
    );
  } finally {
    memory[Symbol.dispose]();
  }
});

/** `verify(parameters)`, with the block function that the machine code itself chooses or a given one. */
function verifier(path: 'plain' | 'shaNi'): (at: number) => number {
  const sha = sha256Code();
  const code: Item[] = [lea(rsi, mem({ rip: sha[path] })), jmp(entry), align(16), verifyRegions(entry, sha.sha256)];
  return mapCode(assemble(code, sha.items).bytes, 1).call;
}

/** What the machine code finds: it says the same as /proc/cpuinfo, or the test of that path could not run. */
function chosen(): 'plain' | 'shaNi' {
  const sha = sha256Code();
  const { bytes, offsetOf } = assemble(chooseSha256(entry, sha.plain, sha.shaNi), sha.items);
  const { address, call } = mapCode(bytes, 0);
  const at = call() - address;
  assert.ok(at === offsetOf(sha.plain) || at === offsetOf(sha.shaNi));
  return at === offsetOf(sha.plain) ? 'plain' : 'shaNi';
}

test('the SHA instructions are chosen where the processor has them', () => {
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))![1]!.trim().split(' ');
  const has = ['sha_ni', 'ssse3', 'sse4_1'].every((flag) => flags.includes(flag));
  assert.equal(chosen(), has ? 'shaNi' : 'plain');
});

for (const path of new Set(['plain', chosen()] as const)) {
  test(`verify (${path}) finds the first region that was changed`, () => {
    const verify = verifier(path);
    const memory = new Region(1 << 16);
    try {
      fc.assert(
        fc.property(
          fc.array(fc.uint8Array({ minLength: 1, maxLength: 2000 }), { maxLength: REGIONS_MAX }),
          fc.option(fc.tuple(fc.nat(), fc.nat(), fc.nat({ max: 7 }))),
          (contents, change) => {
            let end = 4096;
            const regions = contents.map((data) => {
              memory.bytes.set(data, end);
              const start = memory.address + end;
              end += data.length;
              return { start, size: data.length, sha256: createHash('sha256').update(data).digest() };
            });
            let expected = -1;
            if (change !== null && regions.length > 0) {
              expected = change[0] % regions.length;
              const region = regions[expected]!;
              const at = region.start - memory.address + (change[1] % region.size);
              memory.bytes[at] = memory.bytes[at]! ^ (1 << change[2]);
            }
            const code = purgatory({ regions });
            memory.bytes.set(code.subarray(PARAMETERS_OFFSET, PARAMETERS_OFFSET + purgatory_parameters.size));
            assert.equal(verify(memory.address), expected);
          },
        ),
      );
    } finally {
      memory[Symbol.dispose]();
    }
  });
}
