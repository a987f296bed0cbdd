/**
 * What commands print with --json is what their help says. There a shape stands behind "With --json" as it is printed, with names of
 * members alone; "?" is behind those that may be missing.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { crashDump } from '../../lab/crashes.ts';
import { dumps } from '../../lab/dumps.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { main } from '../../src/cli/app.ts';
import { crash } from '../../src/cli/commands/crash.ts';
import { tree } from '../../src/cli/tree.ts';

const folder = temporaryFolder();
after(() => removeTemporary(folder));
const { vmcore, kdump } = await dumps({ kernel: '6.12', cpus: 1, levels: 4 });
const oops = (await crashDump('oops')).vmcore;
const out = (name: string) => join(folder, name);

/** Of each command, what it is run with, and which of the shapes of its help it prints then; all members that it has occur in these. */
const runs: Readonly<Record<string, readonly (readonly [shape: number, ...args: string[]])[]>> = {
  bt: [
    [0, vmcore, '-a'],
    [0, vmcore, '1'],
  ],
  convert: [[0, vmcore, out('converted')]],
  dis: [[0, vmcore, 'schedule']],
  dmesg: [
    [0, vmcore],
    [0, vmcore, '-T'],
  ],
  files: [[0, vmcore, '1']],
  filter: [
    [0, vmcore, out('filtered'), '-d', '31', '-l'],
    [1, vmcore, '--mem-usage'],
    [2, vmcore, out('log'), '--dump-dmesg'],
    [0, vmcore, out('stream'), '-F'],
    [3, out('stream'), out('together'), '-R'],
  ],
  foreach: [[0, vmcore, 'user', 'ps']],
  info: [
    [0, vmcore],
    [0, kdump],
  ],
  kmem: [
    [0, vmcore],
    [1, vmcore, '-s'],
  ],
  list: [[0, vmcore, '-H', 'modules', '-o', 'module.list', '-s', 'module.name']],
  mod: [[0, oops]],
  mount: [[0, vmcore]],
  p: [
    [0, vmcore, 'jiffies'],
    [0, vmcore, 'runqueues'],
  ],
  ps: [[0, vmcore]],
  rd: [[0, vmcore, 'linux_banner', '4']],
  report: [[0, vmcore, '-o', out('page.html')]],
  search: [
    [0, vmcore, 'init_task'],
    [0, vmcore, '-c', 'sysrq triggered crash'],
  ],
  struct: [
    [0, vmcore, 'list_head'],
    [1, vmcore, 'task_struct.comm', 'init_task'],
  ],
  sym: [[0, vmcore, 'init_task', 'schedule']],
  sys: [[0, vmcore]],
  task: [[0, vmcore, '1']],
  vm: [[0, vmcore, '1']],
  vtop: [[0, vmcore, 'init_task']],
  why: [
    [0, vmcore],
    [0, oops],
  ],
};

/** Those that arm a machine and save it look into no dump: crashcapture.test.ts. */
const ARMING = new Set(['arm', 'disarm', 'save', 'setup', 'status', 'test']);
const commands = crash.commands!.filter(({ name }) => !ARMING.has(name));

interface Shape {
  readonly list?: Shape;
  readonly members?: ReadonlyMap<string, { readonly shape: Shape; readonly optional: boolean }>;
}

/** The shapes that a help has, in order. */
function shapesOf(description: readonly string[]): Shape[] {
  const text = description.filter((each) => each.includes('With --json')).join(' ');
  const found: Shape[] = [];
  let at = text.indexOf('With --json');
  const shape = (): Shape => {
    if (text[at] === '[') {
      at++;
      const list = shape();
      assert.equal(text[at++], ']', text.slice(0, at));
      return { list };
    }
    if (text[at] !== '{') return {};
    const members = new Map<string, { shape: Shape; optional: boolean }>();
    do {
      at++;
      const [whole, name, mark, colon] = /^ ?"(\w+)"(\??)(: )?/.exec(text.slice(at)) ?? assert.fail(text.slice(at));
      at += whole.length;
      members.set(name!, { optional: mark !== '', shape: colon === undefined ? {} : shape() });
    } while (text[at] === ',');
    assert.equal(text[at++], '}', text.slice(0, at));
    return { members };
  };
  for (;;) {
    const next = text.slice(at).search(/\[?\[?\{"/);
    if (next < 0) return found;
    at += next;
    found.push(shape());
  }
}

/** What only damaged dumps have, or a stack that cannot be unwound. test/lab/crashdamage.test.ts has such. */
const RARE = new Set(['why', 'partial', 'rescued']);
/** Values that are addresses are hexadecimal texts. */
const ADDRESSES = new Set(['pc', 'task', 'address', 'mm', 'pgd', 'vma', 'virtual', 'physical', 'superblock']);

function compare(value: unknown, { list, members }: Shape, where: string): void {
  if (value === null) return;
  if (list !== undefined) {
    assert.ok(Array.isArray(value), `${where} is a list`);
    for (const [i, each] of value.entries()) compare(each, list, `${where}[${i}]`);
  } else if (members !== undefined) {
    assert.ok(typeof value === 'object' && !Array.isArray(value), `${where} is an object`);
    for (const [name, each] of Object.entries(value)) {
      const member = members.get(name) ?? assert.fail(`${where}.${name} is in no help`);
      if (ADDRESSES.has(name) && each !== null) assert.match(each, /^0x[0-9a-f]+$/, `${where}.${name}`);
      compare(each, member.shape, `${where}.${name}`);
    }
    for (const [name, { optional }] of members) assert.ok(optional || name in value, `${where}.${name} is missing`);
  }
}

/** Names of members in a value. */
function namesIn(value: unknown, into: Set<string>): void {
  if (Array.isArray(value)) for (const each of value) namesIn(each, into);
  else if (typeof value === 'object' && value !== null) {
    for (const [name, each] of Object.entries(value)) {
      into.add(name);
      namesIn(each, into);
    }
  }
}

function namesOf({ list, members }: Shape): string[] {
  if (list !== undefined) return namesOf(list);
  return [...(members ?? [])].flatMap(([name, { shape }]) => [name, ...namesOf(shape)]);
}

test('each command is looked at', () => {
  assert.deepEqual(Object.keys(runs).sort(), commands.map(({ name }) => name).sort());
});

for (const { name, description = [] } of commands) {
  test(`crash ${name} --json is what its help says`, async () => {
    const shapes = shapesOf(description);
    const found = new Set<string>();
    for (const [index, ...args] of runs[name]!) {
      let [text, errors] = ['', ''];
      const stdout = { write: (more: string) => (text += more) };
      const stderr = { write: (more: string) => (errors += more) };
      const exit = await main(['crash', name, ...args, '--json'], { stdout, stderr, env: {} }, tree);
      assert.equal(exit, 0, errors);
      const value = JSON.parse(text);
      compare(value, shapes[index] ?? assert.fail(`its help has no shape ${index}`), name);
      namesIn(value, found);
    }
    const never = shapes.flatMap(namesOf).filter((each) => !found.has(each) && !RARE.has(each));
    assert.deepEqual(never, [], 'documented, and never seen');
  });
}
