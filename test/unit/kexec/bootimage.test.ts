import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LOADED_HIGH, SETUP_HEADER_OFFSET, XLF_KERNEL_64 } from '../../../src/abi/bootparam.ts';
import { FormatError, TideoverError, UnsupportedError } from '../../../src/errors.ts';
import { isBzImage, readBzImage } from '../../../src/kexec/bootimage.ts';
import { bzImage } from './images.ts';

test('a bzImage tells all that a loader needs', () => {
  const bytes = bzImage();
  const image = readBzImage(bytes, 'vmlinuz');
  assert.equal(image.version, '6.99.0-test (somebody) #1');
  assert.equal(image.size, 0x2000000);
  assert.equal(image.alignment, 0x200000);
  assert.equal(image.preferred, 0x1000000);
  assert.deepEqual([image.entry64, image.entry32], [0x200, 0]);
  assert.equal(image.commandLineMax, 2047);
  assert.deepEqual([image.relocatable, image.above4G, image.fiveLevel], [true, true, true]);
  assert.deepEqual(
    image.parts.map(({ offset, memorySize }) => [offset, memorySize]),
    [[0, 0x2000000]],
  );
  assert.deepEqual(image.parts[0]!.bytes, bytes.subarray(2048));
  // The jump at 0x200 says that the header ends at 0x26c.
  assert.equal(image.setupHeader.length, 0x26c - SETUP_HEADER_OFFSET);
});

test('a count of 0 setup sectors means 4', () => {
  const bytes = bzImage({ setup_sects: 4 });
  bytes[SETUP_HEADER_OFFSET] = 0;
  assert.equal(readBzImage(bytes, 'k').parts[0]!.bytes.length, 4096);
});

test('an image that is limited to 32-bit addresses limits its initrd too', () => {
  const image = readBzImage(bzImage({ xloadflags: XLF_KERNEL_64 }), 'k');
  assert.equal(image.above4G, false);
  assert.equal(image.initrdMax, 0x7fffffff);
});

for (const [field, change] of [
  ['version', { version: 0x206 }],
  ['loadflags', { loadflags: 0xff & ~LOADED_HIGH }],
] as const) {
  test(`an image that cannot be entered is refused with ${field}`, () => {
    assert.throws(
      () => readBzImage(bzImage(change), 'vmlinuz'),
      (error) => error instanceof UnsupportedError && error.message.includes(`vmlinuz: ${field}: `),
    );
  });
}

for (const [field, change] of [
  ['boot_flag', { boot_flag: 0 }],
  ['header', { header: 0x12345678 }],
  ['syssize', { syssize: 0x101 }],
  ['init_size', { init_size: 4095 }],
  ['kernel_alignment', { kernel_alignment: 0x300000 }],
  ['jump', { jump: 0x00eb }],
] as const) {
  test(`a file that contradicts itself is refused with ${field}`, () => {
    assert.throws(
      () => readBzImage(bzImage(change), 'vmlinuz'),
      (error) => error instanceof FormatError && error.field === field && error.file === 'vmlinuz',
    );
  });
}

test('a kernel without a 64-bit entry has the 32-bit one, and so has one too old to tell', () => {
  assert.equal(readBzImage(bzImage({ xloadflags: 0 }), 'k').entry64, undefined);
  const old = readBzImage(bzImage({ version: 0x20a }), 'k');
  assert.deepEqual([old.entry64, old.entry32, old.above4G], [undefined, 0, false]);
});

test('a truncated image is refused wherever it ends', () => {
  const whole = bzImage();
  fc.assert(
    fc.property(fc.integer({ min: 0, max: whole.length - 1 }), (length) => {
      assert.throws(() => readBzImage(whole.subarray(0, length), 'k'), FormatError);
    }),
  );
});

test('any bytes are either an image or refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 123, maxLength: 123 }), fc.boolean(), (header, plausible) => {
      const bytes = bzImage();
      bytes.set(header, SETUP_HEADER_OFFSET);
      if (plausible) bytes.set([0x55, 0xaa, 0xeb, 0x6a, 0x48, 0x64, 0x72, 0x53], SETUP_HEADER_OFFSET + 13);
      try {
        assert.equal(isBzImage(bytes), true, readBzImage(bytes, 'k').file);
      } catch (error) {
        assert.ok(error instanceof TideoverError, String(error));
      }
    }),
  );
});
