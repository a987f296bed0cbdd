import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { closure, configuredFolders, stripped } from '../../../src/kexec/closure.ts';
import { dynamic, readElf } from '../../../src/mem/elf.ts';

const folder = mkdtempSync(join(tmpdir(), 'closure-'));
after(() => rmSync(folder, { recursive: true }));

test('finds what the dynamic linker finds', () => {
  const files = closure([process.execPath]);
  // The linker lists what it would load: "name => path (address)", and itself as "path (address)".
  const listed = execFileSync('/lib64/ld-linux-x86-64.so.2', ['--list', process.execPath], { encoding: 'utf8' });
  const expected = [...listed.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!);
  assert.deepEqual([...files].sort(), [...new Set([process.execPath, ...expected])].sort());
});

test('a script needs its interpreter, and that its libraries', () => {
  const script = join(folder, 'script');
  writeFileSync(script, '#! /bin/sh -e\necho\n');
  const files = closure([script]);
  assert.deepEqual(files.slice(0, 2), [script, '/bin/sh']);
  assert.ok(files.some((file) => file.endsWith('/libc.so.6')));
});

test('other files need nothing', () => {
  const text = join(folder, 'text');
  writeFileSync(text, 'words\n');
  assert.deepEqual(closure([text]), [text]);
  writeFileSync(text, '#!/nonesuch/python\n');
  assert.deepEqual(closure([text]), [text]);
});

test('a stripped program is smaller and runs', () => {
  const program = readElf(readFileSync(process.execPath), process.execPath);
  const smaller = stripped(program);
  assert.ok(smaller.length < program.bytes.length);
  assert.deepEqual(dynamic(readElf(smaller, 'stripped')), dynamic(program));
  const path = join(folder, 'node');
  writeFileSync(path, smaller);
  chmodSync(path, 0o755);
  assert.equal(execFileSync(path, ['-p', '6 * 7'], { encoding: 'utf8' }), '42\n');
});

test('ld.so.conf: comments, includes relative to the file, in their order', () => {
  mkdirSync(join(folder, 'conf.d'));
  writeFileSync(join(folder, 'ld.so.conf'), '# first\n/one # here\n\ninclude conf.d/*.conf\n/four\n');
  writeFileSync(join(folder, 'conf.d/b.conf'), '/three\n');
  writeFileSync(join(folder, 'conf.d/a.conf'), '/two\n');
  assert.deepEqual(configuredFolders(join(folder, 'ld.so.conf')), ['/one', '/two', '/three', '/four']);
  assert.deepEqual(configuredFolders(join(folder, 'none')), []);
});
