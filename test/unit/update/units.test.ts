import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { missingProgram, unitFiles } from '../../../src/update/units.ts';

test('units: packets are held back before the network, processes go on after it, and only where there are any', () => {
  const files = unitFiles(['/usr/bin/tideover']);
  assert.deepEqual(
    [...files.keys()],
    ['/etc/systemd/system/tideover-hold.service', '/etc/systemd/system/tideover-resume.service'],
  );
  for (const { text, mode } of files.values()) {
    assert.equal(mode, 0o644);
    const sections = [...text.matchAll(/^\[(\w+)\]$/gm)].map(([, name]) => name);
    assert.deepEqual(sections, ['Unit', 'Service', 'Install']);
    const conditions = text
      .split('\n')
      .filter((line) => line.startsWith('Condition'))
      .slice(0, 2);
    // A bar makes one of both enough: systemd.unit(5).
    assert.deepEqual(conditions, [
      'ConditionKernelCommandLine=|tideover.pkram',
      'ConditionDirectoryNotEmpty=|/var/lib/tideover/spill',
    ]);
  }
  const [hold, resume] = [...files.values()].map(({ text }) => text) as [string, string];
  assert.match(hold, /^Before=network-pre\.target /m);
  // It is ready when packets are held back, and stays.
  assert.match(hold, /^Type=notify$/m);
  assert.match(hold, /^ExecStart=\/usr\/bin\/tideover update resume --hold --stay$/m);
  assert.match(resume, /^After=network\.target tideover-hold\.service$/m);
  assert.match(resume, /^ExecStart=\/usr\/bin\/tideover update resume --follow$/m);
  // Where it is not there, or the other one was killed, it is as before.
  assert.match(resume, /^ExecStartPre=-\/bin\/sh /m);
  // What was restored stays when tideover has ended.
  for (const unit of [hold, resume]) assert.match(unit, /^KillMode=process$/m);
});

test('units whose Node or program is gone are seen, whatever their names', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover units $100% "x"-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'main.mjs');
  for (const { text } of unitFiles([process.execPath, program]).values()) {
    assert.equal(missingProgram(text), program);
  }
  writeFileSync(program, '');
  for (const { text } of unitFiles([process.execPath, program]).values()) assert.equal(missingProgram(text), undefined);
  assert.equal(missingProgram('[Service]\nExecStart=/nowhere/node /usr update resume\n'), '/nowhere/node');
});
