import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireRoom } from '../../../src/capture/arm.ts';
import { UnsupportedError } from '../../../src/errors.ts';

const MIB = 2 ** 20;

test('with too little memory set aside it is said how much is missing, and what would do', () => {
  assert.equal(requireRoom(192 * MIB, 120 * MIB), 72 * MIB);
  assert.throws(
    () => requireRoom(128 * MIB, 99 * MIB),
    (error: Error) =>
      error instanceof UnsupportedError &&
      /reserved 128 MiB; 99 MiB are for kernel and system and 48 MiB to run in: 19 MiB are missing/.test(
        error.message,
      ) &&
      /crashkernel=160M/.test(error.message),
  );
  // What it asks for is enough.
  assert.ok(requireRoom(160 * MIB, 99 * MIB) >= 48 * MIB);
});
