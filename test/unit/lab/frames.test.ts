import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Frame, FrameReader, quote, request } from '../../../lab/frames.ts';

const first = '01234567-89ab-cdef-0123-456789abcdef.87';
const second = 'fedcba98-7654-3210-fedc-ba9876543210.91';
const helloLine = (agent: string) => `~lab hello ${agent} 6.1.0-56-amd64\n`;
const hello = (agent: string): Frame => ({ kind: 'hello', agent, release: '6.1.0-56-amd64' });

/** The bytes that a guest sends for a frame. */
function encode(frame: Frame): Buffer {
  if (frame.kind === 'hello') return Buffer.from(`~lab hello ${frame.agent} ${frame.release}\n`);
  if (frame.kind === 'out')
    return Buffer.concat([Buffer.from(`~lab out ${frame.id} ${frame.data.length}\n`), frame.data]);
  const { id, status, stdout, stderr } = frame;
  return Buffer.concat([Buffer.from(`~lab exit ${id} ${status} ${stdout.length} ${stderr.length}\n`), stdout, stderr]);
}

const data = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
const id = fc.nat(99_999);
const anyFrame: fc.Arbitrary<Frame> = fc.oneof(
  fc.constant(hello(first)),
  fc.record({ kind: fc.constant('out' as const), id, data }, { noNullPrototype: true }),
  fc.record(
    { kind: fc.constant('exit' as const), id, status: fc.nat(255), stdout: data, stderr: data },
    { noNullPrototype: true },
  ),
);

test('frames come out as they went in, however the stream is cut', () => {
  fc.assert(
    fc.property(fc.array(anyFrame, { maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 40 })), (frames, cuts) => {
      const stream = Buffer.concat(frames.map(encode));
      const reader = new FrameReader();
      const found: Frame[] = [];
      let at = 0;
      for (const cut of cuts) {
        found.push(...reader.push(stream.subarray(at, at + cut)));
        at = Math.min(stream.length, at + cut);
      }
      found.push(...reader.push(stream.subarray(at)));
      assert.deepEqual(found, frames);
      assert.deepEqual(reader.silence(), []);
    }),
  );
});

test('what is no frame is passed over', () => {
  const reader = new FrameReader();
  const noise = `\x1b[2J\x1b[01;01HUEFI \xff\n~lab unknown 1\n~lab out x 3\n${'long '.repeat(4000)}`;
  assert.deepEqual(reader.push(Buffer.from(noise, 'latin1')), []);
  assert.deepEqual(reader.push(Buffer.from(helloLine(first))), [hello(first)]);
});

test('a hello in a torn frame counts when the line falls silent after it', () => {
  const reader = new FrameReader();
  assert.deepEqual(reader.push(Buffer.from('~lab out 7 1000000\nthe first bytes')), []);
  assert.deepEqual(reader.silence(), [], 'a slow guest is no new one');
  assert.deepEqual(reader.push(Buffer.from(helloLine(second).slice(0, 20))), []);
  assert.deepEqual(reader.push(Buffer.from(helloLine(second).slice(20))), []);
  assert.deepEqual(reader.silence(), [hello(second)]);
  const next = encode({ kind: 'out', id: 8, data: Buffer.from('x') });
  assert.deepEqual(reader.push(next), [{ kind: 'out', id: 8, data: Buffer.from('x') }]);
});

test('a hello in the middle of bytes that go on is bytes', () => {
  const payload = Buffer.from(`${helloLine(second)}more`);
  const reader = new FrameReader();
  const stream = encode({ kind: 'out', id: 7, data: payload });
  assert.deepEqual(reader.push(stream.subarray(0, -4)), []);
  assert.deepEqual(reader.push(stream.subarray(-4)), [{ kind: 'out', id: 7, data: payload }]);
});

test('a torn header line does not hide the hello behind it', () => {
  const reader = new FrameReader();
  assert.deepEqual(reader.push(Buffer.from(`~lab exit 7 0 12${helloLine(second)}`)), [hello(second)]);
});

test('a request is a line and its bytes', () => {
  const bytes = request(first, 'put', 3, Buffer.from([0, 255]), "/tmp/it's");
  assert.equal(bytes.toString('latin1'), `\n~lab ${first} put 3 2 '/tmp/it'\\''s'\n\x00\xff`);
});

test('a quoted word is one word for a shell', () => {
  // No NUL: it ends an argument.
  const word = fc.string({ maxLength: 20 }).map((text) => text.replaceAll('\0', ''));
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 20 }), (words) => {
      const script = `printf '%s\\0' ${words.map(quote).join(' ')}`;
      assert.equal(execFileSync('sh', ['-c', script], { encoding: 'utf8' }), words.map((each) => `${each}\0`).join(''));
    }),
    { numRuns: 30 },
  );
});
