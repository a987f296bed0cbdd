/** What a kernel starts with, made of this machine's own files. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { requirePackages } from '../../../lab/packages.ts';
import { environment } from '../../../src/kexec/environment.ts';
import { systemImage } from '../../../src/kexec/system.ts';
import { readElf } from '../../../src/mem/elf.ts';
import { readNewc } from '../../unit/kexec/newc.ts';

const folder = mkdtempSync(join(tmpdir(), 'environment-'));
after(() => rmSync(folder, { recursive: true }));
before(() => requirePackages('squashfs'));

/** A small program stands for Node: packing that takes seconds. */
function smallSystem(): { cache: string; node: string; bundle: string } {
  const bundle = mkdtempSync(join(folder, 'bundle-'));
  writeFileSync(join(bundle, 'tideover-single.mjs'), 'one');
  for (const name of ['capture', 'hibernate']) writeFileSync(join(bundle, `tideover-${name}.mjs`), name);
  writeFileSync(join(bundle, 'koffi.node'), 'two');
  return { cache: join(bundle, 'cache'), node: '/bin/true', bundle };
}

test('the system has Node, the command line and their libraries, and is made once', () => {
  const request = smallSystem();
  const image = systemImage(request);
  const listed = execFileSync('unsquashfs', ['-l', image], { encoding: 'utf8' });
  for (const path of ['usr/bin/node', 'opt/tideover/tideover-single.mjs', 'opt/tideover/koffi.node', 'libc.so.6']) {
    assert.match(listed, new RegExp(`${path}$`, 'm'));
  }
  assert.equal(systemImage(request), image);
  writeFileSync(join(request.bundle, 'tideover-single.mjs'), 'another');
  assert.notEqual(systemImage(request), image);
  assert.equal(readdirSync(request.cache).length, 2);
});

test('without modules the system is mounted in place, by an init that is a static program', () => {
  const request = { release: 'none', system: systemImage(smallSystem()), modules: [], args: ['crash', 'save'] };
  const files = [{ name: 'etc/own', mode: 0o600, data: 'mine' }];
  const { initrd, pram } = environment({ ...request, files });
  assert.ok(pram !== undefined && pram.length > 0);
  const members = new Map(readNewc(initrd).map(({ name, data }) => [name, data]));
  assert.equal(members.get('etc/own'), 'mine');
  const init = Buffer.from(members.get('init')!, 'latin1');
  const { segments } = readElf(init, 'init');
  assert.equal(segments.length, 1);
  for (const text of ['/dev/pmem0', 'crash', 'save']) assert.ok(init.includes(Buffer.from(`${text}\0`)));
});
