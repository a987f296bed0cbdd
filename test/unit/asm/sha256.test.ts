/** The machine code runs here, natively, and node:crypto says what is right. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { align, assemble } from '../../../src/asm/assemble.ts';
import { jmp, lea } from '../../../src/asm/instructions.ts';
import { mem, rcx } from '../../../src/asm/operands.ts';
import { sha256Code } from '../../../src/asm/sha256.ts';
import { mapCode, Region } from '../../../src/sys/region.ts';

const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))![1]!.trim().split(' '));

/** `sha256(digest, data, size)` over one of the two block functions. */
function load(path: 'plain' | 'shaNi') {
  const code = sha256Code();
  return mapCode(assemble(lea(rcx, mem({ rip: code[path] })), jmp(code.sha256), align(16), code.items).bytes, 3).call;
}

for (const [path, needs] of [
  ['plain', []],
  ['shaNi', ['sha_ni', 'ssse3', 'sse4_1']],
] as const) {
  const missing = needs.filter((flag) => !flags.has(flag));
  const skip = missing.length > 0 && `this processor has no ${missing.join(', ')}`;

  test(`SHA-256 (${path}) is what node:crypto says, for any size and place`, { skip }, () => {
    const sha256 = load(path);
    const memory = new Region(1 << 16);
    try {
      fc.assert(
        fc.property(
          fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ minLength: 4000, maxLength: 9000 })),
          fc.nat({ max: 63 }),
          (data, shift) => {
            const at = 64 + shift;
            memory.bytes.set(data, at);
            sha256(memory.address, memory.address + at, data.length);
            const expected = createHash('sha256').update(data).digest('hex');
            assert.equal(Buffer.from(memory.bytes.subarray(0, 32)).toString('hex'), expected);
          },
        ),
        { numRuns: 300 },
      );
      // Every length of padding.
      for (let size = 0; size <= 130; size++) {
        const data = memory.bytes.subarray(64, 64 + size);
        sha256(memory.address, memory.address + 64, size);
        assert.equal(
          Buffer.from(memory.bytes.subarray(0, 32)).toString('hex'),
          createHash('sha256').update(data).digest('hex'),
          `${size} bytes`,
        );
      }
    } finally {
      memory[Symbol.dispose]();
    }
  });
}
