/** The medium in a file: one user at a time, killed at any moment, and with more in it than a test's toy. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { FileMedium, NoRoomError, OrderError, openPkram, type Pkram } from '../../../src/pkram/index.ts';
import { asRoot } from '../root.ts';

const MIB = 1 << 20;

function folderOf(t: TestContext, parent = tmpdir()): string {
  const folder = fs.mkdtempSync(join(parent, 'pkram-medium-'));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  return folder;
}

function save(pkram: Pkram, name: string, bytes: Uint8Array, checksums = true): void {
  const node = pkram.prepareSave(name, { checksums });
  const object = node.prepareSaveObject();
  object.write(bytes);
  object.finishSaveObject();
  node.finishSave();
}

function bytesOf(pkram: Pkram, name: string): Uint8Array {
  const peek = pkram.peek(name, { verify: true });
  const [object] = peek.objects();
  const bytes = object!.readAll();
  peek[Symbol.dispose]();
  return bytes;
}

/** Runs a module that has the path of the medium in `path`, in another process. */
function run(path: string, code: string): ChildProcess {
  const library = new URL('../../../src/pkram/index.ts', import.meta.url).href;
  const module = `import { FileMedium, openPkram } from ${JSON.stringify(library)}; const path = ${JSON.stringify(path)}; ${code}`;
  return spawn(process.execPath, ['--input-type=module', '-e', module], { stdio: ['ignore', 'pipe', 'inherit'] });
}

describe('the lock', () => {
  it('keeps a second user out, in this process and in others, and goes with a holder that is killed', async (t) => {
    const path = join(folderOf(t), 'medium');
    const child = run(
      path,
      "openPkram(FileMedium.open(path, { create: true })); console.log('open'); setInterval(() => {}, 1000);",
    );
    await once(child.stdout!, 'data');
    assert.throws(() => FileMedium.open(path), UnsupportedError);
    assert.throws(() => FileMedium.open(path, { readOnly: true }), UnsupportedError);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const medium = FileMedium.open(path);
    assert.throws(() => FileMedium.open(path), UnsupportedError);
    medium.close();
    const readers = [1, 2].map(() => FileMedium.open(path, { readOnly: true }));
    assert.throws(() => FileMedium.open(path), UnsupportedError);
    for (const reader of readers) reader.close();
    FileMedium.open(path).close();
  });

  it('lets those who only read change nothing', (t) => {
    const path = join(folderOf(t), 'medium');
    openPkram(FileMedium.open(path, { create: true })).close();
    const pkram = openPkram(FileMedium.open(path, { readOnly: true }));
    assert.throws(() => pkram.prepareSave('node'), UnsupportedError);
    pkram.close();
  });
});

describe('a process that is killed while it saves and removes', () => {
  it('leaves every node whole that it had finished, and nothing of others', async (t) => {
    const path = join(folderOf(t, '/dev/shm'), 'medium');
    const kept = randomBytes(3 * MIB);
    const first = openPkram(FileMedium.open(path, { create: true }));
    save(first, 'kept', kept);
    first.close();
    // Says a name when its node is finished. Contents follow from the name, so that they can be checked.
    const code = `
      const pkram = openPkram(FileMedium.open(path));
      for (const { name } of pkram.nodes()) if (name !== 'kept') pkram.remove(name);
      console.log('ready');
      for (let i = 0; ; i++) {
        const node = pkram.prepareSave('n' + i, { checksums: true });
        for (let j = 0; j < 3; j++) {
          const object = node.prepareSaveObject();
          for (let k = 0; k < 50; k++) object.savePage(new Uint8Array(4096).fill(i + j), k * j);
          object.write(Buffer.alloc(100_000, 'n' + i));
          object.finishSaveObject();
        }
        node.finishSave();
        process.stdout._handle.setBlocking?.(true);
        process.stdout.write('n' + i + '\\n');
        if (i >= 5) pkram.remove('n' + (i - 5));
      }`;
    for (let round = 0; round < 12; round++) {
      const child = run(path, code);
      let said = '';
      child.stdout!.setEncoding('latin1').on('data', (text) => {
        said += text;
      });
      while (!said.includes('ready')) await sleep(5);
      await sleep(Math.random() * 150);
      child.kill('SIGKILL');
      await once(child, 'close');
      const pkram = openPkram(FileMedium.open(path));
      const finished = said.split('\n').filter((line) => line.startsWith('n')).length;
      const names = pkram.nodes().map((node) => node.name!);
      assert.ok(pkram.nodes().every((node) => node.fault === undefined));
      // At most the one is more whose name was not said any more, or one less that was being removed.
      const numbers = names.filter((name) => name !== 'kept').map((name) => Number(name.slice(1)));
      if (finished > 0) assert.ok(numbers.includes(finished - 1), `${names} after ${finished} were finished`);
      assert.ok(
        numbers.every((n) => n <= finished && n >= finished - 7),
        `${names} after ${finished} were finished`,
      );
      assert.deepEqual(bytesOf(pkram, 'kept'), new Uint8Array(kept));
      for (const n of numbers) {
        const peek = pkram.peek(`n${n}`, { verify: true });
        const objects = [...peek.objects()];
        assert.equal(objects.length, 3);
        for (const [j, object] of objects.entries()) {
          for (let k = 0; k < 50; k++) {
            const loaded = object.loadPage()!;
            assert.equal(loaded.index, BigInt(k * j));
            assert.equal(loaded.page[4095], (n + j) & 255);
          }
          assert.equal(object.loadPage(), undefined);
          assert.ok(Buffer.from(object.readAll()).equals(Buffer.alloc(100_000, `n${n}`)));
        }
        peek[Symbol.dispose]();
      }
      const held = pkram.nodes().reduce((sum, node) => sum + node.held, 0);
      assert.equal(pkram.status().used, (128 << 10) + 4096 + held, 'no trace of what was not finished');
      pkram.close();
    }
  });
});

describe('contents', () => {
  it('of 200 MB come back by checksum, as pages and as bytes, and their memory is given back', (t) => {
    const folder = folderOf(t, '/dev/shm');
    const path = join(folder, 'medium');
    const size = 100 * MIB;
    const sum = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
    const [asPages, asBytes] = [randomBytes(size), randomBytes(size)];
    const first = openPkram(FileMedium.open(path, { create: true }));
    const node = first.prepareSave('both', { checksums: true });
    const object = node.prepareSaveObject();
    for (let at = 0; at < size; at += 3 << 18) {
      object.savePages(asPages.subarray(at, at + (3 << 18)), at / 4096);
      object.write(asBytes.subarray(at, at + (3 << 18)));
    }
    object.finishSaveObject();
    node.finishSave();
    first.close();
    assert.ok(fs.statSync(path).blocks * 512 < 2 * size + 2 * MIB, 'little is added');

    const second = openPkram(FileMedium.open(path));
    const load = second.prepareLoad('both', { verify: true });
    const loaded = load.prepareLoadObject()!;
    const back = Buffer.alloc(size);
    for (let next = loaded.loadPages(); next !== undefined; next = loaded.loadPages()) {
      back.set(next.pages, Number(next.index) * 4096);
    }
    assert.equal(sum(back), sum(asPages));
    assert.equal(sum(loaded.readAll()), sum(asBytes));
    loaded.finishLoadObject();
    load.finishLoad();
    second.close();
    assert.ok(fs.statSync(path).blocks * 512 < MIB);
  });

  it('handed out where they lie are empty after the medium is closed, and not memory of somebody else', (t) => {
    const pkram = openPkram(FileMedium.open(join(folderOf(t), 'medium'), { create: true }));
    const node = pkram.prepareSave('node');
    const object = node.prepareSaveObject();
    object.savePage(new Uint8Array(4096).fill(7), 0);
    object.finishSaveObject();
    node.finishSave();
    const loaded = [...pkram.peek('node').objects()][0]!;
    const { page } = loaded.loadPage()!;
    assert.equal(page[0], 7);
    pkram.close();
    assert.equal(page.length, 0);
    assert.throws(() => loaded.loadPage(), OrderError);
  });
});

describe('a file', () => {
  it('is made in a directory, whole or not at all', (t) => {
    const folder = folderOf(t);
    const pkram = openPkram(FileMedium.open(join(folder, 'new/'), { create: true }));
    pkram.close();
    assert.deepEqual(fs.readdirSync(join(folder, 'new')), ['pkram']);
    assert.equal(fs.statSync(join(folder, 'new/pkram')).mode & 0o777, 0o600);
    // What one that was killed left over is no obstacle.
    fs.writeFileSync(join(folder, 'other.new'), 'rubbish');
    openPkram(FileMedium.open(join(folder, 'other'), { create: true })).close();
    assert.deepEqual(fs.readdirSync(folder).sort(), ['new', 'other']);
  });

  it('that holds something else is left alone', (t) => {
    const path = join(folderOf(t), 'medium');
    for (const content of [Buffer.alloc(0), Buffer.from('text'), Buffer.alloc(MIB, 'text')]) {
      fs.writeFileSync(path, content);
      assert.throws(() => openPkram(FileMedium.open(path, { create: true })), FormatError);
      assert.deepEqual(fs.readFileSync(path), content);
    }
    fs.rmSync(path);
    assert.throws(() => FileMedium.open(path), { code: 'ENOENT' });
  });

  it('that was cut off is refused', (t) => {
    const path = join(folderOf(t), 'medium');
    const pkram = openPkram(FileMedium.open(path, { create: true }));
    save(pkram, 'node', randomBytes(3 * MIB));
    pkram.close();
    fs.truncateSync(path, 2 * MIB);
    assert.throws(() => openPkram(FileMedium.open(path)), FormatError);
  });

  it('on a file system that is full keeps what is saved', asRoot, (t) => {
    const folder = folderOf(t);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder]);
    try {
      const path = join(folder, 'medium');
      const kept = randomBytes(2 * MIB);
      const pkram = openPkram(FileMedium.open(path, { create: true }));
      save(pkram, 'kept', kept);
      assert.throws(() => save(pkram, 'large', new Uint8Array(16 * MIB)), NoRoomError);
      pkram.close();
      const again = openPkram(FileMedium.open(path));
      assert.deepEqual(bytesOf(again, 'kept'), new Uint8Array(kept));
      save(again, 'small', randomBytes(MIB));
      again.close();
    } finally {
      execFileSync('umount', ['--lazy', folder]);
    }
  });
});
