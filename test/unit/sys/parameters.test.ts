import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fcntl from '../../../src/abi/fcntl.ts';
import * as mman from '../../../src/abi/mman.ts';
import * as sched from '../../../src/abi/sched.ts';
import { cstring, dirfd, flags, hex, octal, oneOf, word } from '../../../src/sys/syscall.ts';

test('bits are shown by their names, what has none in hexadecimal', () => {
  const prot = flags(mman, /^PROT_/);
  assert.equal(prot.show(mman.PROT_READ | mman.PROT_WRITE), 'PROT_READ|PROT_WRITE');
  assert.equal(prot.show(mman.PROT_NONE), 'PROT_NONE');
  assert.equal(prot.show(mman.PROT_EXEC | 0x800), 'PROT_EXEC|0x800');
  assert.equal(flags(mman, /^MREMAP_/).show(0), '0');
});

test('a name that covers the bits of others stands for them', () => {
  const openFlags = flags(fcntl, /^O_(?!ACCMODE)/);
  assert.equal(openFlags.show(fcntl.O_SYNC | fcntl.O_RDWR), 'O_RDWR|O_SYNC');
  assert.equal(openFlags.show(fcntl.O_DSYNC), 'O_DSYNC');
  assert.equal(openFlags.show(fcntl.O_TMPFILE), 'O_TMPFILE');
});

test('bits above the 32nd are shown too', () => {
  const text = flags(sched, /^CLONE_/).show(sched.CLONE_CLEAR_SIGHAND + sched.CLONE_VM);
  assert.equal(text, 'CLONE_VM|CLONE_CLEAR_SIGHAND');
});

test('commands, directories, modes and addresses read as in strace', () => {
  assert.equal(oneOf(mman, /^MADV_/).show(mman.MADV_DONTNEED), 'MADV_DONTNEED');
  assert.equal(oneOf(mman, /^MADV_/).show(9999), '0x270f');
  assert.equal(dirfd.show(fcntl.AT_FDCWD), 'AT_FDCWD');
  assert.equal(dirfd.show(7), '7');
  assert.equal(octal.show(0o640), '0640');
  assert.equal(hex.show(0xffff_8880_0000_0000n), '0xffff888000000000');
  assert.equal(word.show(new Uint8Array(16)), '[16 bytes]');
  assert.equal(cstring.show('a"b\n'), '"a\\"b\\n"');
  assert.ok(cstring.show('x'.repeat(5000)).length < 300);
});

test('text with a NUL inside is refused, and not cut off', () => {
  assert.throws(() => cstring.pass('/etc\0/passwd'), /holds a NUL/);
});
