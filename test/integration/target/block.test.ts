/** Block devices as places of dumps: loop devices of this machine. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ArchiveWriter } from '../../../src/crash/archive.ts';
import { writeAt } from '../../../src/crash/io/output.ts';
import { openBlock } from '../../../src/target/block.ts';
import { findPlace } from '../../../src/target/place.ts';
import { rootTest } from '../root.ts';

const run = (program: string, ...args: string[]) => execFileSync(program, args, { encoding: 'utf8' }).trim();

rootTest('a device that is in use or holds something is refused; an earlier dump is not, and is named', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-block-'));
  const file = join(folder, 'disk');
  writeFileSync(file, '');
  truncateSync(file, 8 << 20);
  const device = run('losetup', '--find', '--show', file);
  try {
    const find = () => findPlace(device, { purpose: 'saving a crash dump to', sshKey: '/nonesuch' });
    const { place, note } = await find();
    assert.deepEqual([place.kind, note], ['block', undefined]);
    const { fd } = openBlock(device, 'write');
    try {
      await assert.rejects(find(), /it is in use/);
      const output = { write: (at: number, bytes: Uint8Array) => writeAt(fd, at, bytes), sync: () => fsyncSync(fd) };
      await new ArchiveWriter(output, 'host-202611211430', new Date()).add('vmcore-dmesg.txt', [Buffer.from('log\n')]);
    } finally {
      closeSync(fd);
    }
    assert.match((await find()).note!, /holds host-202611211430; .*tar -xf \/dev\/loop/);
    assert.equal(run('tar', '-xOf', device), 'log');
    run('mkfs.ext4', '-q', '-F', device);
    await assert.rejects(find(), /it holds something.*dd if=\/dev\/zero of=\/dev\/loop/s);
  } finally {
    run('losetup', '--detach', device);
    rmSync(folder, { recursive: true });
  }
});
