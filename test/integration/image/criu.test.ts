/** CRIU, crit and gdb are the judges of what is read and written here. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { type Criu, fetchCriu } from '../../../lab/criu.ts';
import { SyscallError } from '../../../src/errors.ts';
import { createDirectory, openDirectory } from '../../../src/image/directory.ts';
import { writeCore } from '../../../src/image/elfcore.ts';
import { storeFromJson, storeToJson } from '../../../src/image/json.ts';
import { describe, render } from '../../../src/image/show.ts';
import { MemoryStore, readWhole, withSource } from '../../../src/image/store.ts';
import { isRaw } from '../../../src/image/types.ts';
import { verify } from '../../../src/image/verify.ts';
import { info, writeSample } from '../../unit/image/sample.ts';
import { until } from '../patience.ts';
import { isRoot, rootTest as test } from '../root.ts';

const folder = fs.mkdtempSync(join(tmpdir(), 'tideover-criu-'));
const [dumped, log] = [join(folder, 'dumped'), join(folder, 'log')];
const program = new URL('target.py', import.meta.url).pathname;
let debian: Criu;
let target: ChildProcess | undefined;
let pid: number;

before(async () => {
  if (!isRoot) return;
  debian = await fetchCriu();
  fs.mkdirSync(dumped);
  target = spawn('python3', [program, log], { detached: true, stdio: 'ignore', cwd: folder });
  pid = target.pid!;
  await growing();
  debian.criu('dump', '-t', `${pid}`, '-D', dumped, '--leave-running');
});

after(() => {
  // The session of the target: itself, its child, and what was restored in their place.
  if (target !== undefined) process.kill(-pid, 'SIGKILL');
  fs.rmSync(folder, { recursive: true, force: true });
});

/** Waits until the target counted on. */
async function growing(): Promise<void> {
  const lines = () => (fs.existsSync(log) ? fs.readFileSync(log, 'utf8').split('\n').length : 0);
  const begin = lines();
  await until(() => lines() >= begin + 5, 'the target does not count');
}

/** Texts of JSON with the numbers as they stand there, and base64 without line breaks. */
function exactly(json: string): unknown {
  const keep = (_: string, value: unknown, { source }: { source: string }) => {
    if (typeof value === 'number') return source;
    return typeof value === 'string' ? value.replaceAll('\n', '') : value;
  };
  return JSON.parse(json, keep as (this: unknown, key: string, value: unknown) => unknown);
}

function jsonOf(path: string): MemoryStore {
  const json = new MemoryStore();
  const draft = json.draft();
  storeToJson(openDirectory(path), draft);
  draft.commit();
  return json;
}

test('what CRIU writes is whole, is read as crit reads it, and is written again byte for byte', () => {
  const store = openDirectory(dumped);
  assert.deepEqual(
    verify(store).map(({ message }) => message),
    [],
  );
  const json = jsonOf(dumped);
  const again = new MemoryStore();
  const draft = again.draft();
  storeFromJson(json, draft);
  draft.commit();
  for (const file of store.names()) {
    const bytes = withSource(store, file, (source) => Buffer.from(readWhole(source, 1 << 28)));
    assert(bytes.equals(again.files.get(file)!), `${file} is another one`);
  }
  const files = store.names().filter((file) => !isRaw(file));
  assert(files.length >= 20, `${files.length} images are compared`);
  for (const [index, theirs] of debian.decode(files.map((file) => join(dumped, file))).entries()) {
    const ours = Buffer.from(json.files.get(`${files[index]}.json`)!).toString();
    assert.deepEqual(exactly(ours), exactly(theirs), files[index]);
  }
});

test('what is written here is read by crit, and its JSON encoded by crit is the same image', () => {
  const path = join(folder, 'sample');
  const draft = createDirectory(path, info);
  writeSample(draft);
  draft.commit();
  const json = jsonOf(path);
  // crit takes names for UTF-8, which that of one file of the sample is not.
  const texts = [...json.files].filter(([name]) => name.endsWith('.json') && name !== 'files.img.json');
  assert(texts.length >= 15, `${texts.length} images are compared`);
  const images = texts.map(([name]) => join(path, name.slice(0, -'.json'.length)));
  for (const [index, theirs] of debian.decode(images).entries()) {
    assert.deepEqual(exactly(theirs), exactly(Buffer.from(texts[index]![1]).toString()), images[index]);
  }
  const inputs = texts.map(([name, text]) => {
    fs.writeFileSync(join(folder, name), text);
    return join(folder, name);
  });
  debian.encode(inputs);
  for (const [index, image] of images.entries()) {
    assert(fs.readFileSync(`${inputs[index]}.img`).equals(fs.readFileSync(image)), `${image} by crit is another one`);
  }
  assert.match(debian.crit('show', join(path, 'pstree.img')), /"pid": 102,\n +"ppid": 100,/);
});

test('an image is shown with what the process had', () => {
  const text = render(describe(openDirectory(dumped)), { files: true, memory: true });
  assert.match(text, /^made by CRIU\n2 processes, 3 threads, /);
  assert.match(text, new RegExp(`^${pid} python3.*  running, 2 threads, .*: .*python3 ${program} ${log}$`, 'm'));
  assert.match(text, new RegExp(`^ +\\d+  ${log}$`, 'm'));
  assert.match(text, /pipe \d+ write end/);
  assert.match(text, /\[stack\]/);
});

test('gdb opens the core file and finds threads, memory and registers', () => {
  const core = join(folder, 'core');
  const fd = fs.openSync(core, 'wx', 0o600);
  const output = {
    write: (bytes: Uint8Array, position: number) =>
      assert.equal(fs.writeSync(fd, bytes, 0, bytes.length, position), bytes.length),
    finish: (size: number) => fs.ftruncateSync(fd, size),
  };
  writeCore(openDirectory(dumped), output);
  fs.closeSync(fd);
  const mappings = describe(openDirectory(dumped)).tasks[0]!.mappings;
  const megabyte = (kind: string) =>
    mappings.filter((each) => each.end - each.start === 1 << 20 && each.perms.endsWith(kind));
  const [shared] = megabyte('s');
  const exe = fs.readlinkSync(`/proc/${pid}/exe`);
  const said = execFileSync(
    'gdb',
    [
      ...['-batch', '-nx', '-iex', 'set debuginfod enabled off', exe, core],
      ...['-ex', 'info threads', '-ex', 'thread 1', '-ex', 'backtrace', '-ex', 'info registers rip rsp fs_base mxcsr'],
      ...['-ex', `x/s ${shared!.start + 4096}`, '-ex', `p/x *(char(*)[4])${shared!.start}`, '-ex', 'info proc'],
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 },
  );
  assert.match(said, new RegExp(`LWP ${pid}\\)`));
  assert.equal([...said.matchAll(/^[* ] +\d+ +.*LWP \d+/gm)].length, 2, said);
  assert.match(said, /#0 .*\n(.*\n)*#[2-9] /, 'a stack of several frames');
  assert.match(said, /:\t"together"/);
  assert.match(said, /= \{0x0, 0x0, 0x0, 0x0\}/);
  // A core file has room for 79 characters of the command line.
  assert.match(said, new RegExp(`exe = '.*python3 ${program.slice(0, 10)}`));
});

test('CRIU restores an image that went through JSON and was written here', async () => {
  const killed = join(folder, 'killed');
  fs.mkdirSync(killed);
  await growing();
  const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim();
  const family = [pid, ...children.split(' ').map(Number)];
  debian.criu('dump', '-t', `${pid}`, '-D', killed);
  const [json, back] = [join(folder, 'json'), join(folder, 'back')];
  for (const [from, to, convert] of [
    [killed, json, storeToJson],
    [json, back, storeFromJson],
  ] as const) {
    const draft = createDirectory(to, undefined);
    convert(openDirectory(from), draft);
    draft.commit();
  }
  assert.deepEqual(verify(openDirectory(back)), []);
  const before = fs.readFileSync(log, 'utf8');
  // Its number is free when nobody's process, group or session has it: not before its child was waited for too.
  await until(() => !family.some((each) => fs.existsSync(`/proc/${each}`)), 'the killed target is not waited for');
  debian.criu('restore', '-D', back, '-d');
  await growing();
  const lines = fs.readFileSync(log, 'utf8').trimEnd().split('\n').map(Number);
  assert(fs.readFileSync(log, 'utf8').startsWith(before));
  assert.deepEqual(
    lines,
    Array.from(lines, (_, index) => index + 1),
  );
});

test('a full disk leaves neither a partial image nor a partial directory', () => {
  const small = join(folder, 'small');
  fs.mkdirSync(small);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', small]);
  try {
    const draft = createDirectory(join(small, 'image'), info);
    assert.throws(
      () => {
        writeSample(draft);
        draft.create('pages-5.img', 1 << 20).write(new Uint8Array(1 << 20));
        draft.commit();
      },
      (error: unknown) => error instanceof SyscallError && error.errnoName === 'ENOSPC',
    );
    draft.abort();
    assert.deepEqual(fs.readdirSync(small), []);
  } finally {
    execFileSync('umount', [small]);
  }
});
