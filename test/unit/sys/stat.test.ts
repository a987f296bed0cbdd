import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FormatError } from '../../../src/errors.ts';
import { parseStat, parseStatus } from '../../../src/sys/stat.ts';

const TAIL =
  'S 1 1234 1200 34816 1234 4194304 151 9 2 3 7 8 0 0 20 -5 4 0 2621 2543616 257 18446744073709551615 94000000000000 ' +
  '94000000004096 140720000000000 0 0 0 0 2 81920 0 0 0 17 1 50 2 0 0 0 94000000008192 94000000009000 94000000100000 ' +
  '140720000001000 140720000001010 140720000001010 140720000002000 256\n';

test('fields of stat are those of the man page', () => {
  const stat = parseStat(`1234 (cat) ${TAIL}`, 'sample');
  const expected = {
    pid: 1234,
    comm: 'cat',
    state: 'S',
    ppid: 1,
    pgrp: 1234,
    session: 1200,
    tty_nr: 34816,
    tpgid: 1234,
    flags: 4194304,
    utime: 7,
    stime: 8,
    priority: 20,
    nice: -5,
    num_threads: 4,
    starttime: 2621,
    vsize: 2543616,
    startcode: 94000000000000,
    endcode: 94000000004096,
    startstack: 140720000000000,
    exit_signal: 17,
    processor: 1,
    rt_priority: 50,
    policy: 2,
    start_data: 94000000008192,
    end_data: 94000000009000,
    start_brk: 94000000100000,
    arg_start: 140720000001000,
    arg_end: 140720000001010,
    env_start: 140720000001010,
    env_end: 140720000002000,
    exit_code: 256,
  };
  const names = Object.keys(expected) as (keyof typeof expected)[];
  assert.deepEqual(Object.fromEntries(names.map((name) => [name, stat[name]])), expected);
});

test('a name may look like the rest of the line', () => {
  for (const comm of ['a b', ') S 1 (', '(()', 'a\nb', ') ) )', '', '1 (x) S 0']) {
    const stat = parseStat(`77 (${comm}) ${TAIL}`, 'sample');
    assert.deepEqual([stat.pid, stat.comm, stat.state, stat.exit_code], [77, comm, 'S', 256]);
  }
  fc.assert(
    fc.property(fc.string({ maxLength: 15, unit: fc.constantFrom(' ', '(', ')', '\n', 'S', '1', '-') }), (comm) => {
      assert.equal(parseStat(`77 (${comm}) ${TAIL}`, 'sample').comm, comm);
    }),
  );
});

test('a line that is cut off is a FormatError', () => {
  const line = `1234 (cat) ${TAIL}`;
  for (const end of [0, 4, 8, 20, 100]) assert.throws(() => parseStat(line.slice(0, end), '/proc/1/stat'), FormatError);
});

const STATUS = `\
Name:\ta\\nb\\\\n
Umask:\t0027
State:\tT (stopped)
Tgid:\t4242
Ngid:\t0
Pid:\t4243
PPid:\t1
TracerPid:\t99
Uid:\t0\t1000\t0\t1000
Gid:\t5\t6\t7\t8
FDSize:\t64
Groups:\t4 24 1000 
NStgid:\t4242\t7
NSpid:\t4243\t8
NSpgid:\t4242\t7
NSsid:\t1\t0
Kthread:\t0
VmPeak:\t    5332 kB
VmRSS:\t     812 kB
Threads:\t2
SigQ:\t1/96418
SigPnd:\t0000000000000100
ShdPnd:\t8000000000000000
SigBlk:\tfffffffe7ffbfeff
SigIgn:\t0000000000001000
SigCgt:\t0000000180000000
CapInh:\t0000000000000000
CapPrm:\t000001fffeffffff
CapEff:\t000001fffeffffff
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t3
Speculation_Store_Bypass:\tthread vulnerable
`;

test('status gives names unescaped, masks whole and sizes in bytes', () => {
  const status = parseStatus(STATUS, 'sample');
  assert.equal(status.Name, 'a\nb\\n');
  assert.equal(status.Umask, 0o27);
  assert.equal(status.State, 'T');
  assert.deepEqual([status.Tgid, status.Pid, status.PPid, status.TracerPid, status.Threads], [4242, 4243, 1, 99, 2]);
  assert.deepEqual(status.Uid, [0, 1000, 0, 1000]);
  assert.deepEqual(status.Gid, [5, 6, 7, 8]);
  assert.deepEqual(status.Groups, [4, 24, 1000]);
  assert.deepEqual(
    [status.NStgid, status.NSpid, status.NSsid],
    [
      [4242, 7],
      [4243, 8],
      [1, 0],
    ],
  );
  assert.equal(status.SigPnd, 1n << 8n);
  assert.equal(status.ShdPnd, 1n << 63n);
  assert.equal(status.SigBlk, 0xfffffffe7ffbfeffn);
  assert.equal(status.CapEff, 0x1fffeffffffn);
  assert.equal(status.NoNewPrivs, true);
  assert.deepEqual([status.Seccomp, status.Seccomp_filters], [2, 3]);
  assert.deepEqual(
    [...status.sizes],
    [
      ['VmPeak', 5332 * 1024],
      ['VmRSS', 812 * 1024],
    ],
  );
});

test('a process without groups has none', () => {
  assert.deepEqual(parseStatus(STATUS.replace('4 24 1000 ', ' '), 'sample').Groups, []);
});

test('a missing line is named', () => {
  assert.throws(
    () => parseStatus(STATUS.replace(/SigBlk.*\n/, ''), '/proc/9/status').SigBlk,
    /^FormatError: .*9\/status: SigBlk/,
  );
});
