import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Gaps } from '../../../../src/crash/kernel/gaps.ts';
import { rawText, readLog, timeText } from '../../../../src/crash/kernel/printk.ts';
import { Vmcoreinfo } from '../../../../src/crash/vmcoreinfo.ts';
import { FormatError } from '../../../../src/errors.ts';
import { Machine } from './machine.ts';

const [POINTER, RING, DESCS, INFOS, DATA] = [1n, 2n, 3n, 4n, 5n].map(
  (i) => 0xffff_8880_0000_0000n + i * 0x10_0000n,
) as [bigint, bigint, bigint, bigint, bigint];
/** struct printk_ringbuffer and what belongs to it, as x86-64 lays them out. */
const ringInfo = new Vmcoreinfo(`SYMBOL(prb)=${POINTER.toString(16)}
OFFSET(printk_ringbuffer.desc_ring)=0
OFFSET(printk_ringbuffer.text_data_ring)=48
OFFSET(prb_desc_ring.count_bits)=0
OFFSET(prb_desc_ring.descs)=8
OFFSET(prb_desc_ring.infos)=16
OFFSET(prb_desc_ring.head_id)=24
OFFSET(prb_desc_ring.tail_id)=32
SIZE(prb_desc)=24
OFFSET(prb_desc.state_var)=0
OFFSET(prb_desc.text_blk_lpos)=8
OFFSET(prb_data_blk_lpos.begin)=0
OFFSET(prb_data_blk_lpos.next)=8
SIZE(printk_info)=88
OFFSET(printk_info.seq)=0
OFFSET(printk_info.ts_nsec)=8
OFFSET(printk_info.text_len)=16
OFFSET(printk_info.caller_id)=20
OFFSET(prb_data_ring.size_bits)=0
OFFSET(prb_data_ring.data)=8
`);

const COUNT_BITS = 3;
const SIZE_BITS = 8;

/** A ring of 8 records and 256 bytes, written to as the kernel does (prb_reserve, data_alloc). */
class Ring {
  readonly machine = new Machine();
  #next = 0n;
  #position = 0n;

  constructor(first: bigint) {
    this.#next = first;
    this.machine.u64(POINTER, RING);
    this.machine.u32(RING, COUNT_BITS);
    this.machine.u64(RING + 8n, DESCS, INFOS);
    this.machine.u32(RING + 48n, SIZE_BITS);
    this.machine.u64(RING + 56n, DATA);
  }

  add(text: Uint8Array, { state = 2n, level = 6, caller = 0 } = {}): void {
    const id = this.#next++;
    const slot = id % 8n;
    const size = 2n ** BigInt(SIZE_BITS);
    let [begin, next] = [1n, 1n];
    if (text.length > 0) {
      const need = (8n + BigInt(text.length) + 7n) & ~7n;
      begin = this.#position;
      next = begin + need;
      let data = begin % size;
      if (begin / size !== (next - 1n) / size) {
        next = (next / size) * size + need;
        data = 0n;
      }
      this.machine.u64(DATA + data, id);
      this.machine.write(DATA + data + 8n, text);
      this.#position = next;
    }
    this.machine.u64(DESCS + slot * 24n, id | (state << 62n), begin, next);
    this.machine.u64(INFOS + slot * 88n, id, id * 1_000_001_000n);
    this.machine.u32(INFOS + slot * 88n + 16n, text.length | (3 << 16) | (level << 29), caller);
    this.machine.u64(RING + 24n, id, id < 7n ? 0n : id - 7n);
  }
}

test('the last records of a ring are read, also where it has gone round many times', () => {
  const texts = fc.array(fc.uint8Array({ maxLength: 20 }), { minLength: 8, maxLength: 60 });
  fc.assert(
    fc.property(texts, fc.nat(100), (all, first) => {
      const ring = new Ring(BigInt(first));
      for (const text of all) ring.add(text, { level: text.length % 8, caller: 0x8000_0000 + text.length });
      const gaps = new Gaps();
      const log = readLog(ring.machine.memory(), ringInfo, gaps);
      assert.deepEqual(
        log.map(({ text }) => Buffer.from(text).toString('hex')),
        all.slice(-8).map((text) => Buffer.from(text).toString('hex')),
      );
      const last = all.at(-1)!;
      const seq = BigInt(first + all.length - 1);
      assert.deepEqual(log.at(-1), {
        seq,
        time: seq * 1_000_001_000n,
        facility: 3,
        level: last.length % 8,
        caller: { kind: 'cpu', id: last.length },
        text: Uint8Array.from(last),
      });
      assert.deepEqual(gaps.list, []);
    }),
    { numRuns: 30 },
  );
});

test('a record that was being written is left out', () => {
  const ring = new Ring(0n);
  ring.add(Buffer.from('whole'), { state: 1n });
  ring.add(Buffer.from('not yet'), { state: 0n });
  const log = readLog(ring.machine.memory(), ringInfo, new Gaps());
  assert.deepEqual(
    log.map(({ text }) => `${Buffer.from(text)}`),
    ['whole'],
  );
});

test('damage costs the records it hit, and no more time than there are records', () => {
  const make = (change: (machine: Machine) => void) => {
    const ring = new Ring(0n);
    for (let i = 0; i < 12; i++) ring.add(Buffer.from(`record ${i}`));
    change(ring.machine);
    const gaps = new Gaps();
    return { log: readLog(ring.machine.memory(), ringInfo, gaps), gaps: gaps.list };
  };
  const { log, gaps } = make((machine) => machine.drop(DATA));
  assert.deepEqual([log.length, gaps.length > 0], [0, true]);
  assert.throws(() => make((machine) => machine.u32(RING, 60)), FormatError);
  assert.throws(() => make((machine) => machine.u64(RING + 24n, 2n ** 61n)), FormatError);
  assert.equal(make((machine) => machine.u64(DESCS, 5n)).log.length, 7);
  // A text that claims to be longer than its block ends with it.
  assert.ok(make((machine) => machine.u32(INFOS + 16n, 0xffff)).log.every(({ text }) => text.length < 32));
  assert.throws(() => readLog(new Machine().memory(), new Vmcoreinfo(''), new Gaps()), FormatError);
});

test('log_buf of kernels before 5.10', () => {
  const info = new Vmcoreinfo(`SYMBOL(log_buf)=${POINTER.toString(16)}
SYMBOL(log_buf_len)=${(POINTER + 8n).toString(16)}
SYMBOL(log_first_idx)=${(POINTER + 12n).toString(16)}
SYMBOL(log_next_idx)=${(POINTER + 16n).toString(16)}
SIZE(printk_log)=16
OFFSET(printk_log.ts_nsec)=0
OFFSET(printk_log.len)=8
OFFSET(printk_log.text_len)=10
OFFSET(printk_log.dict_len)=12
`);
  const machine = new Machine();
  machine.u64(POINTER, DATA);
  machine.u32(POINTER + 8n, 256, 192, 64);
  const record = (at: number, time: bigint, text: string, length = 32) => {
    machine.u64(DATA + BigInt(at), time);
    machine.u32(DATA + BigInt(at + 8), length | (text.length << 16), 5 << 29);
    machine.write(DATA + BigInt(at + 16), Buffer.from(text));
  };
  record(192, 1_000_000n, 'first');
  record(224, 2_000_000n, '', 0);
  record(0, 3_000_000n, 'second');
  record(32, 4_000_000n, 'third');
  const gaps = new Gaps();
  const texts = () => readLog(machine.memory(), info, gaps).map((each) => `${each.level} ${rawText(each)}`);
  const whole = ['5 [    0.001000] first', '5 [    0.003000] second', '5 [    0.004000] third'];
  assert.deepEqual([texts(), gaps.list], [whole, []]);
  // Round and round.
  machine.u32(POINTER + 16n, 8);
  assert.ok(texts().length < 32);
  assert.match(gaps.list.join(), /outside|circle/);
});

test('times and texts look as in vmcore-dmesg', () => {
  assert.equal(timeText(0n), '    0.000000');
  assert.equal(timeText(1_234_567_890_123n), ' 1234.567890');
  assert.equal(timeText(99_999_999_999_999_999n), '99999999.999999');
  const text = Buffer.from('a\tb\x1b[31m α\n', 'utf8');
  const record = { seq: 0n, time: 5_000n, facility: 0, level: 4, caller: undefined, text };
  assert.equal(rawText(record), '[    0.000005] a\tb\\x1b[31m \\xce\\xb1\n');
});
