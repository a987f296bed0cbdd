/** The image commands, on the image of a process that runs. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { rootTest as test } from '../root.ts';
import { Bench } from './target.ts';

async function imageOf(t: TestContext): Promise<{ target: Bench; pid: number }> {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['2', '3']);
  await target.says('ready');
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--leave-running');
  assert.equal(status, 0, stderr);
  return { target, pid };
}

test('image show tells the processes, their memory and their files', async (t) => {
  const { target, pid } = await imageOf(t);
  const { tasks } = JSON.parse(target.tideover('image', 'show', target.image, '--json').stdout);
  const root = tasks[0];
  assert.equal(root.pid, pid);
  assert.equal(root.exe, execFileSync('readlink', [`/proc/${pid}/exe`], { encoding: 'utf8' }).trim());
  const text = target.tideover('image', 'show', target.image, '--files', '--memory').stdout;
  assert.match(text, new RegExp(`^${pid} .*threads?, `, 'm'));
  assert.match(text, new RegExp(`^memory of ${pid}\\n.* r.*\\n`, 'm'));
  assert.match(text, /^ +0 {2}\/dev\/null$/m);
});

test('image verify finds a flipped bit in the pages, and a missing file', async (t) => {
  const { target, pid } = await imageOf(t);
  assert.deepEqual(target.tideover('image', 'verify', target.image).status, 0);
  const pages = join(target.image, 'pages-1.img');
  const bytes = readFileSync(pages);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(pages, bytes);
  const damaged = target.tideover('image', 'verify', target.image);
  assert.equal(damaged.status, 5);
  assert.match(damaged.stderr, /pages-1\.img/);
  execFileSync('rm', [join(target.image, `mm-${pid}.img`)]);
  const missing = target.tideover('image', 'verify', target.image, '--json');
  assert.equal(missing.status, 5);
  assert.equal(typeof JSON.parse(missing.stdout).error.message, 'string');
  assert.match(missing.stderr, new RegExp(`mm-${pid}\\.img`));
});

test('image convert makes a core file that gdb opens, and JSON that becomes the same image', async (t) => {
  const { target, pid } = await imageOf(t);
  const core = join(target.folder, 'core');
  const made = target.tideover('image', 'convert', target.image, core, '--to', 'core');
  assert.equal(made.status, 0, made.stderr);
  assert.equal(statSync(core).mode & 0o777, 0o600);
  const exe = execFileSync('readlink', [`/proc/${pid}/exe`], { encoding: 'utf8' }).trim();
  const gdb = execFileSync('gdb', ['-batch', '-nx', '-ex', 'bt', '-ex', 'info threads', exe, core], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  assert.match(gdb, /#0 .*\n(.*\n)*.* main \(/);
  assert.equal(gdb.match(/LWP \d+/g)!.length >= 3, true, gdb);

  const [text, back] = [join(target.folder, 'text'), join(target.folder, 'back')];
  assert.equal(target.tideover('image', 'convert', target.image, text, '--to', 'json').status, 0);
  assert.equal(target.tideover('image', 'convert', text, back, '--to', 'image').status, 0);
  const ours = /^tideover\./;
  for (const file of readdirSync(target.image).filter((name) => !ours.test(name))) {
    assert.deepEqual(readFileSync(join(back, file)), readFileSync(join(target.image, file)), file);
  }
  assert.equal(target.tideover('image', 'convert', target.image, back, '--to', 'json').status, 3, 'not over an image');
});

test('what is no image, and what was typed wrong', async (t) => {
  const { target } = await imageOf(t);
  assert.equal(target.tideover('image', 'show', join(target.folder, 'none')).status, 1);
  assert.equal(target.tideover('image', 'convert', target.image, join(target.folder, 'c'), '--pid', 'x').status, 2);
  assert.equal(
    target.tideover('image', 'convert', target.image, join(target.folder, 'c'), '--pid', '999999').status,
    3,
  );
  writeFileSync(join(target.image, 'inventory.img'), 'not an image');
  const wrong = target.tideover('image', 'show', target.image);
  assert.equal(wrong.status, 5);
  assert.match(wrong.stderr, /inventory\.img at byte 0/);
});
