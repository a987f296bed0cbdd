import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { check, imports, violation } from '../layers.ts';

const src = new URL('../../src', import.meta.url).pathname;

test('the sources keep the layers', () => {
  assert.deepEqual(check(src), []);
});

test('an import from crash to sys is found, in every spelling', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-layers-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'crash'));
  const spellings = [
    "import { openat } from '../sys/files.ts';",
    "import {\n  openat,\n} from '../sys/files.ts';",
    "import type { Vma } from '../sys/maps.ts';",
    "export { openat } from '../sys/files.ts';",
    "export * from '../sys/files.ts';",
    "import '../sys/files.ts';",
    "const files = await import('../sys/files.ts');",
  ];
  for (const spelling of spellings) {
    writeFileSync(join(folder, 'crash/dump.ts'), `const before = 1;\n${spelling}\n`);
    assert.match(
      check(folder).join('\n'),
      /^crash\/dump\.ts: imports sys\/\w+\.ts: crash never imports sys$/,
      spelling,
    );
  }
});

test('the levels', () => {
  assert.equal(violation('kexec/load.ts', 'sys/kexec.ts'), undefined);
  assert.equal(violation('cli/main.ts', 'abi/errno.ts'), undefined);
  assert.equal(violation('mem/range.ts', 'mem/align.ts'), undefined);
  assert.match(violation('mem/range.ts', 'sys/iomem.ts')!, /one level/);
  assert.match(violation('process/dump.ts', 'pkram/node.ts')!, /one level/);
  assert.match(violation('sys/files.ts', 'kexec/load.ts')!, /stands above/);
  assert.match(violation('abi/struct.ts', 'errors.ts') ?? 'none', /none/);
  assert.match(violation('attic/x.ts', 'abi/struct.ts')!, /no layer/);
});

test('koffi is for sys/syscall.ts alone', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-layers-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'process'));
  writeFileSync(join(folder, 'process/dump.ts'), "import koffi from 'koffi';\n");
  assert.match(check(folder).join('\n'), /only sys\/syscall\.ts does/);
});

test('text that only looks like an import is none', () => {
  assert.deepEqual(imports("// see below\n/* import '../sys/x.ts' */\nconst from = 'a';\n"), []);
});
