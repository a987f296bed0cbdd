/** tideover pkram, as a program. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FileMedium } from '../../../src/pkram/index.ts';

const program = new URL('../../../src/cli/main.ts', import.meta.url).pathname;
let folder: string;
let medium: string;

before(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'pkram-command-'));
  medium = join(folder, 'medium');
});
after(() => fs.rmSync(folder, { recursive: true }));

function pkram(args: string[], input?: Uint8Array, path = medium) {
  const env = { ...process.env, TIDEOVER_PKRAM: path };
  const result = spawnSync(process.execPath, [program, 'pkram', ...args], { env, input, maxBuffer: 1 << 28 });
  return {
    status: result.status,
    stdout: result.stdout,
    text: result.stdout.toString(),
    stderr: result.stderr.toString(),
  };
}

function json(args: string[]) {
  const { status, text, stderr } = pkram([...args, '--json']);
  assert.equal(status, 0, stderr);
  return JSON.parse(text);
}

test('nothing is preserved where nothing was saved', () => {
  assert.deepEqual(json(['ls']), { nodes: [] });
  assert.equal(json(['status']).exists, false);
  assert.equal(fs.existsSync(medium), false);
  assert.equal(pkram(['load', 'x']).status, 1);
});

test('a stream goes in by stdin and out by stdout, or into a file', () => {
  const bytes = randomBytes(5_000_001);
  assert.equal(pkram(['save', 'stream', '-', '--checksum'], bytes).status, 0);
  assert.equal(json(['ls']).nodes[0].bytes, 5_000_001);
  const kept = pkram(['load', 'stream', '--keep']);
  assert.equal(kept.status, 0, kept.stderr);
  assert.ok(kept.stdout.equals(bytes));
  const to = join(folder, 'stream');
  assert.equal(pkram(['load', 'stream', to]).status, 0);
  assert.ok(fs.readFileSync(to).equals(bytes));
  assert.deepEqual(json(['ls']).nodes, [], 'it is off the list');
});

test('a stream that is damaged leaves no file, and stays', () => {
  const path = join(folder, 'cut');
  const bytes = randomBytes(9_000_000);
  assert.equal(pkram(['save', 'stream', '-', '--checksum'], bytes, path).status, 0);
  const damaged = fs.readFileSync(path);
  damaged[damaged.indexOf(bytes.subarray(-4096)) + 100]! ^= 1;
  fs.writeFileSync(path, damaged);
  const to = join(folder, 'cut-to');
  for (const _ of [1, 2]) {
    const { status, stderr } = pkram(['load', 'stream', to], undefined, path);
    assert.equal(status, 5, stderr);
    assert.equal(fs.existsSync(to), false);
  }
  fs.writeFileSync(to, 'mine');
  assert.equal(pkram(['load', 'stream', to], undefined, path).status, 1);
  assert.equal(fs.readFileSync(to, 'utf8'), 'mine');
});

test('a directory and a list of files go in and out', () => {
  const from = join(folder, 'from');
  fs.mkdirSync(join(from, 'sub'), { recursive: true });
  fs.writeFileSync(join(from, 'sub/a'), 'A');
  fs.writeFileSync(join(from, 'b'), 'B');
  assert.equal(json(['save', 'tree', from]).files, 4);
  assert.equal(json(['save', 'list', join(from, 'b'), join(from, 'sub')]).files, 3);
  assert.equal(pkram(['load', 'tree', '-']).status, 2);
  for (const name of ['tree', 'list']) {
    const to = join(folder, `${name}-to`);
    assert.equal(pkram(['load', name, to]).status, 0);
    assert.equal(fs.readFileSync(join(to, 'sub/a'), 'latin1'), 'A');
    assert.equal(fs.readFileSync(join(to, 'b'), 'latin1'), 'B');
  }
});

test('what fails leaves the node and says so by its exit code', () => {
  const from = join(folder, 'clash');
  fs.mkdirSync(from);
  fs.writeFileSync(join(from, 'a'), 'A');
  assert.equal(pkram(['save', 'node', from]).status, 0);
  const twice = pkram(['save', 'node', from]);
  assert.deepEqual([twice.status, /already/.test(twice.stderr)], [3, true]);
  const clash = pkram(['load', 'node', from]);
  assert.equal(clash.status, 4, clash.stderr);
  assert.match(clash.stderr, /the node is whole/);
  const full = pkram(['save', 'large', '-', '--limit', '4M'], new Uint8Array(8 << 20));
  assert.equal(full.status, 1, full.stderr);
  assert.deepEqual(
    json(['ls']).nodes.map((node: { name: string }) => node.name),
    ['node'],
  );
  assert.equal(pkram(['save', 'x', '/nonexistent']).status, 1);
  assert.equal(pkram(['save', 'a'.repeat(256), from]).status, 3);
  assert.equal(pkram(['rm', 'node', '--wipe']).status, 0);
  assert.equal(pkram(['rm', 'node']).status, 1);
});

test('a second user is refused', () => {
  const held = FileMedium.open(medium);
  const refused = pkram(['save', 'x', '-'], Buffer.from('x'));
  held.close();
  assert.equal(refused.status, 3);
  assert.match(refused.stderr, /another process has it open/);
});

test('damage is named, and the other nodes can be used', () => {
  const path = join(folder, 'damaged');
  for (const name of ['good', 'bad']) assert.equal(pkram(['save', name, '-'], Buffer.from(name), path).status, 0);
  const bytes = fs.readFileSync(path);
  // The extents of the second node; each is found by its kind, and the last written stands last.
  const lists: number[] = [];
  for (let at = 128 << 10; at < bytes.length; at += 4096) {
    if (bytes.toString('latin1', at, at + 4) === 'PKRP' && bytes.readUInt16LE(at + 4) === 5) lists.push(at);
  }
  assert.equal(lists.length, 2);
  bytes[lists[1]! + 70]! ^= 1;
  fs.writeFileSync(path, bytes);
  const list = pkram(['ls'], undefined, path);
  assert.equal(list.status, 0);
  assert.match(list.text, /bad +damaged/);
  const bad = pkram(['load', 'bad'], undefined, path);
  assert.equal(bad.status, 5);
  assert.match(bad.stderr, /node "bad" in .*crc32/);
  assert.equal(pkram(['load', 'good'], undefined, path).text, 'good');
  assert.equal(pkram(['save', 'more', '-'], Buffer.from('more'), path).status, 0);
  assert.equal(pkram(['rm', 'bad'], undefined, path).status, 0);
  assert.equal(pkram(['load', 'more'], undefined, path).text, 'more');

  fs.writeFileSync(path, Buffer.alloc(1 << 20, 'x'));
  assert.equal(pkram(['ls'], undefined, path).status, 5);
});

test('a medium is made before anything is saved; a file is nothing to give back', () => {
  const refused = pkram(['release']);
  assert.deepEqual([refused.status, /is a file; remove the file/.test(refused.stderr)], [3, true]);
  assert.equal(pkram(['ls', '-m', 'memory:1G']).status, 2);
  const made = JSON.parse(pkram(['init', '--json'], undefined, join(folder, 'early')).text);
  assert.equal(made.medium, join(folder, 'early'));
  assert.equal(fs.existsSync(made.medium), true);
});
