import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { FormatError, UnsupportedError, VerifyError } from '../../../src/errors.ts';
import {
  FileMedium,
  type Medium,
  NoRoomError,
  NoSuchNodeError,
  OrderError,
  openPkram,
  type Pkram,
} from '../../../src/pkram/index.ts';
import { contentOf, expected, MemoryMedium, type ObjectContent, open, saveNode, saveObjects } from './medium.ts';

const MIB = 1 << 20;
const page = (byte: number) => new Uint8Array(4096).fill(byte);
const text = (of: string) => new Uint8Array(Buffer.from(of));
const one: ObjectContent = { pages: [{ index: 7n, flags: 0x8001, fill: [1, 2, 3] }], bytes: text('hello') };
const two: ObjectContent = { pages: [], bytes: text('x'.repeat(10_000)) };

function fresh(size = 2 * MIB, max = size): { medium: MemoryMedium; pkram: Pkram } {
  const medium = MemoryMedium.formatted(size, max);
  return { medium, pkram: openPkram(medium) };
}

describe('saving', () => {
  it('keeps pages with index and flags, and bytes, in the order of saving', () => {
    const { medium, pkram } = fresh();
    saveNode(pkram, 'node', [one, two]);
    assert.deepEqual(contentOf(open(medium.bytes), 'node'), expected([one, two]));
  });

  it('keeps streams of several extents, whatever the pieces in which they come', () => {
    for (const piece of [65_535, 100_001, 5 * MIB + 1]) {
      const { medium, pkram } = fresh(MIB, 32 * MIB);
      const bytes = new Uint8Array(9 * MIB + 1).map((_, i) => i % 251);
      const fill = Array.from({ length: 1500 }, (_, i) => i & 255);
      const object: ObjectContent = { pages: [{ index: 0n, flags: 0, fill }], bytes };
      const save = pkram.prepareSave('node', { checksums: true });
      saveObjects(save, [object], piece);
      save.finishSave();
      assert.deepEqual(contentOf(open(medium.bytes), 'node'), expected([object]));
    }
  });

  it('takes all 64 bits of an index and all 16 of the flags', () => {
    const { medium, pkram } = fresh();
    const pages = [
      { index: 2n ** 64n - 1n, flags: 0xffff, fill: [1] },
      { index: 0n, flags: 0, fill: [2] },
    ];
    saveNode(pkram, 'node', [{ pages, bytes: text('') }]);
    assert.deepEqual(contentOf(open(medium.bytes), 'node'), expected([{ pages, bytes: text('') }]));
    const object = pkram.prepareSave('other').prepareSaveObject();
    assert.throws(() => object.savePage(page(0), 2n ** 64n), RangeError);
    assert.throws(() => object.savePage(page(0), 1, 0x10000), RangeError);
    assert.throws(() => object.savePage(new Uint8Array(100), 1), RangeError);
  });

  it('shows nothing of a node before finishSave', () => {
    const { medium, pkram } = fresh();
    const save = pkram.prepareSave('node');
    saveObjects(save, [one]);
    assert.deepEqual(pkram.nodes(), []);
    assert.deepEqual(open(medium.bytes.slice()).nodes(), []);
    assert.throws(() => pkram.prepareLoad('node'), NoSuchNodeError);
    save.finishSave();
    assert.equal(pkram.nodes()[0]!.name, 'node');
    assert.equal(open(medium.bytes).nodes()[0]!.name, 'node');
  });

  it('refuses a second save of one name, while the first goes on and after it', () => {
    const { pkram } = fresh();
    const save = pkram.prepareSave('node');
    assert.throws(() => pkram.prepareSave('node'), UnsupportedError);
    save.finishSave();
    assert.throws(() => pkram.prepareSave('node'), UnsupportedError);
    pkram.remove('node');
    pkram.prepareSave('node').discardSave();
    pkram.prepareSave('node').finishSave();
  });

  it('saves several nodes at once', () => {
    const { pkram } = fresh();
    const saves = ['a', 'b', 'c'].map((name) => ({ name, save: pkram.prepareSave(name) }));
    const objects = saves.map(({ save }) => save.prepareSaveObject());
    for (let i = 0; i < 40; i++) for (const [n, object] of objects.entries()) object.savePage(page(n), i);
    for (const [n, { save }] of saves.entries()) {
      objects[n]!.finishSaveObject();
      save.finishSave();
    }
    for (const [n, { name }] of saves.entries()) {
      const pages = Array.from({ length: 40 }, (_, i) => ({ index: BigInt(i), flags: 0, fill: [n] }));
      assert.deepEqual(contentOf(pkram, name), expected([{ pages, bytes: text('') }]));
    }
  });

  it('frees all of a save that is discarded or disposed of', () => {
    const { pkram } = fresh();
    const { free } = pkram.status();
    for (const end of ['discardSave', Symbol.dispose] as const) {
      const save = pkram.prepareSave('node');
      saveObjects(save, [one, two]);
      assert.ok(pkram.status().free < free);
      save[end]();
      assert.equal(pkram.status().free, free);
    }
    const finished = pkram.prepareSave('node');
    finished.finishSave();
    finished[Symbol.dispose]();
    assert.equal(pkram.nodes().length, 1);
  });

  it('is discarded, and a load put back, where their block is left', () => {
    const { pkram } = fresh();
    const { free } = pkram.status();
    {
      using save = pkram.prepareSave('node');
      saveObjects(save, [one]);
    }
    assert.deepEqual([pkram.nodes(), pkram.status().free], [[], free]);
    saveNode(pkram, 'node', [one]);
    {
      using load = pkram.prepareLoad('node');
      load.prepareLoadObject()!.readAll();
    }
    assert.deepEqual(contentOf(pkram, 'node'), expected([one]));
  });

  it('takes names of up to 255 bytes of UTF-8', () => {
    const { medium, pkram } = fresh();
    const names = ['ä'.repeat(127), 'a', '\u{1F600}', 'with / and \n', '\uFEFFbom'];
    for (const name of names) pkram.prepareSave(name).finishSave();
    assert.deepEqual(
      open(medium.bytes)
        .nodes()
        .map(({ name }) => name),
      names,
    );
    for (const name of ['', 'ä'.repeat(128), 'a\0b', '\ud800']) {
      assert.throws(() => pkram.prepareSave(name), UnsupportedError);
    }
  });
});

describe('loading', () => {
  it('takes the node off the list, object by object, and frees it', () => {
    const { medium, pkram } = fresh();
    const { free } = pkram.status();
    saveNode(pkram, 'node', [one, two]);
    const load = pkram.prepareLoad('node');
    assert.deepEqual(pkram.nodes(), []);
    assert.throws(() => pkram.prepareLoad('node'), NoSuchNodeError);
    const first = load.prepareLoadObject()!;
    assert.equal(first.loadPage()?.index, 7n);
    const before = pkram.status().free;
    first.finishLoadObject();
    assert.ok(pkram.status().free > before, 'what was not read is free too');
    const second = load.prepareLoadObject()!;
    const into = new Uint8Array(9_999);
    assert.equal(second.read(into), 9_999);
    assert.equal(second.read(into), 1);
    assert.equal(second.read(into), 0);
    assert.equal(second.loadPage(), undefined);
    second.finishLoadObject();
    assert.equal(load.prepareLoadObject(), undefined);
    load.finishLoad();
    assert.equal(pkram.status().free, free);
    assert.deepEqual(open(medium.bytes).nodes(), []);
  });

  it('puts back what was not finished, with the objects that are left', () => {
    const { medium, pkram } = fresh();
    saveNode(pkram, 'node', [one, two]);
    const load = pkram.prepareLoad('node');
    load.prepareLoadObject()!.finishLoadObject();
    load.prepareLoadObject();
    load[Symbol.dispose]();
    for (const each of [pkram, open(medium.bytes)]) {
      assert.deepEqual(contentOf(each, 'node'), expected([two]));
      assert.deepEqual([each.nodes()[0]!.objects, each.nodes()[0]!.objectsTaken], [1, 1]);
    }
    const again = pkram.prepareLoad('node');
    assert.equal(again.prepareLoadObject()!.byteCount, 10_000);
  });

  it('goes over objects and pages by iteration, and gives Node streams', async () => {
    const { pkram } = fresh();
    const save = pkram.prepareSave('node');
    for (const word of ['one', 'two']) {
      const object = save.prepareSaveObject();
      for (let i = 0; i < 20; i++) object.savePage(page(i), i);
      await pipeline(async function* () {
        for (let i = 0; i < 500; i++) yield Buffer.from(`${word} ${i}\n`);
      }, object.writable());
      object.finishSaveObject();
    }
    save.finishSave();
    const load = pkram.prepareLoad('node');
    const seen: unknown[] = [];
    for await (const object of load.objects()) {
      for await (const { index, pages } of object.pages()) seen.push([index, pages.length]);
      const parts: Buffer[] = [];
      for await (const part of object.readable()) parts.push(part as Buffer);
      seen.push(Buffer.concat(parts).toString().split('\n')[499]);
    }
    load.finishLoad();
    const inPages = seen.filter(Array.isArray).reduce((sum, [, length]) => sum + length, 0);
    assert.equal(inPages, 40 * 4096);
    assert.deepEqual(
      seen.filter((each) => typeof each === 'string'),
      ['one 499', 'two 499'],
    );
    assert.equal(pkram.nodes().length, 0);
  });

  it('peeks without taking, and is not peeked into and removed at once', () => {
    const { pkram } = fresh();
    saveNode(pkram, 'node', [one]);
    const peek = pkram.peek('node');
    const [object] = [...peek.objects()];
    assert.throws(() => pkram.remove('node'), OrderError);
    assert.throws(() => pkram.prepareLoad('node'), OrderError);
    assert.equal(object!.loadPage()?.page[0], 1);
    peek[Symbol.dispose]();
    assert.throws(() => object!.loadPage(), OrderError);
    pkram.remove('node');
  });

  it('reads at any place of a byte stream, beside reading on', () => {
    const { pkram } = fresh(16 * MIB);
    const bytes = new Uint8Array(9 * MIB + 1).map((_, i) => i % 251);
    saveNode(pkram, 'node', [{ pages: [], bytes }]);
    const peek = pkram.peek('node', { verify: true });
    const [object] = [...peek.objects()];
    const [front, rest, there] = [new Uint8Array(1000), new Uint8Array(1000), new Uint8Array(5 * MIB)];
    object!.read(front);
    assert.equal(object!.readAt(there, 4 * MIB - 5), there.length);
    assert.deepEqual(there, bytes.subarray(4 * MIB - 5, 9 * MIB - 5));
    assert.equal(object!.readAt(there, 9 * MIB), 1);
    assert.equal(object!.readAt(there, 9 * MIB + 1), 0);
    object!.read(rest);
    assert.deepEqual([front, rest], [bytes.subarray(0, 1000), bytes.subarray(1000, 2000)]);
  });

  it('verifies data on demand', () => {
    const { medium, pkram } = fresh();
    saveNode(pkram, 'summed', [one]);
    const at = Buffer.from(medium.bytes).indexOf(page(2));
    medium.bytes[at + 100] = 99;
    const read = (verify: boolean) => {
      const peek = open(medium.bytes).peek('summed', { verify });
      return [...peek.objects()][0]!.loadPage();
    };
    assert.throws(() => read(true), VerifyError);
    assert.equal(read(false)?.index, 7n);
  });
});

describe('calls out of order', () => {
  const cases: Record<string, (pkram: Pkram) => void> = {
    'a second object before the first is finished': (pkram) => {
      const save = pkram.prepareSave('new');
      save.prepareSaveObject();
      save.prepareSaveObject();
    },
    'finishSave before the object is finished': (pkram) => {
      const save = pkram.prepareSave('new');
      save.prepareSaveObject();
      save.finishSave();
    },
    'savePage after finishSaveObject': (pkram) => {
      const object = pkram.prepareSave('new').prepareSaveObject();
      object.finishSaveObject();
      object.savePage(page(0), 0);
    },
    'write after discardSave': (pkram) => {
      const save = pkram.prepareSave('new');
      const object = save.prepareSaveObject();
      save.discardSave();
      object.write(text('x'));
    },
    'finishSaveObject twice': (pkram) => {
      const object = pkram.prepareSave('new').prepareSaveObject();
      object.finishSaveObject();
      object.finishSaveObject();
    },
    'finishSave twice': (pkram) => {
      const save = pkram.prepareSave('new');
      save.finishSave();
      save.finishSave();
    },
    'discardSave twice': (pkram) => {
      const save = pkram.prepareSave('new');
      save.discardSave();
      save.discardSave();
    },
    'finishSaveObject after discardSave': (pkram) => {
      const save = pkram.prepareSave('new');
      const object = save.prepareSaveObject();
      save.discardSave();
      object.finishSaveObject();
    },
    'prepareSaveObject after finishSave': (pkram) => {
      const save = pkram.prepareSave('new');
      save.finishSave();
      save.prepareSaveObject();
    },
    'discardSave after finishSave': (pkram) => {
      const save = pkram.prepareSave('new');
      save.finishSave();
      save.discardSave();
    },
    'a second object before the first is loaded': (pkram) => {
      const load = pkram.prepareLoad('node');
      load.prepareLoadObject();
      load.prepareLoadObject();
    },
    'finishLoad before the object is finished': (pkram) => {
      const load = pkram.prepareLoad('node');
      load.prepareLoadObject();
      load.finishLoad();
    },
    'loadPage after finishLoadObject': (pkram) => {
      const object = pkram.prepareLoad('node').prepareLoadObject()!;
      object.finishLoadObject();
      object.loadPage();
    },
    'finishLoadObject twice': (pkram) => {
      const object = pkram.prepareLoad('node').prepareLoadObject()!;
      object.finishLoadObject();
      object.finishLoadObject();
    },
    'finishLoad twice': (pkram) => {
      const load = pkram.prepareLoad('node');
      load.finishLoad();
      load.finishLoad();
    },
    'finishLoadObject after the load was disposed of': (pkram) => {
      const load = pkram.prepareLoad('node');
      const object = load.prepareLoadObject()!;
      load[Symbol.dispose]();
      object.finishLoadObject();
    },
    'read after the load was disposed of': (pkram) => {
      const load = pkram.prepareLoad('node');
      const object = load.prepareLoadObject()!;
      load[Symbol.dispose]();
      object.read(new Uint8Array(1));
    },
    'prepareLoadObject after finishLoad': (pkram) => {
      const load = pkram.prepareLoad('node');
      load.finishLoad();
      load.prepareLoadObject();
    },
    'anything after close': (pkram) => {
      pkram.close();
      pkram.prepareSave('new');
    },
  };
  for (const [name, call] of Object.entries(cases)) {
    it(`refuses ${name}`, () => {
      const { pkram } = fresh();
      saveNode(pkram, 'node', [one, two]);
      assert.throws(() => call(pkram), OrderError);
    });
  }
});

describe('room', () => {
  it('grows while the medium does', () => {
    const { medium, pkram } = fresh(256 << 10, 4 * MIB);
    const object: ObjectContent = { pages: [{ index: 0n, flags: 0, fill: new Array(500).fill(5) }], bytes: text('') };
    saveNode(pkram, 'node', [object]);
    assert.ok(pkram.status().size > 2 * MIB);
    assert.deepEqual(contentOf(open(medium.bytes), 'node'), expected([object]));
  });

  for (const limited of [true, false]) {
    it(`runs out ${limited ? 'at the limit' : 'with the medium'}, and keeps what is saved`, () => {
      const medium = MemoryMedium.formatted(limited ? 8 * MIB : MIB);
      const pkram = openPkram(medium, limited ? { limit: MIB } : {});
      saveNode(pkram, 'kept', [one, two]);
      const { free } = pkram.status();
      const save = pkram.prepareSave('large');
      const object = save.prepareSaveObject();
      assert.throws(() => {
        for (let i = 0; i < 300; i++) object.savePage(page(i), i);
      }, NoRoomError);
      assert.throws(() => object.finishSaveObject(), OrderError, 'half of it is no node');
      save[Symbol.dispose]();
      assert.equal(pkram.status().free, free);
      assert.deepEqual(contentOf(open(medium.bytes.slice()), 'kept'), expected([one, two]));
      saveNode(pkram, 'small', [one]);
      pkram.remove('kept');
      assert.deepEqual(contentOf(open(medium.bytes), 'small'), expected([one]));
    });
  }

  it('removes and loads in a medium that is full to the last page', () => {
    const { pkram } = fresh(512 << 10);
    const names: string[] = [];
    assert.throws(() => {
      for (let i = 0; ; i++) {
        saveNode(pkram, `${i}`, [two]);
        names.push(`${i}`);
      }
    }, NoRoomError);
    const load = pkram.prepareLoad(names[0]!);
    load.prepareLoadObject()!.finishLoadObject();
    load.finishLoad();
    for (const name of names.slice(1)) pkram.remove(name);
    assert.equal(pkram.status().used, 128 << 10);
  });
});

describe('removing', () => {
  it('wipes on demand', () => {
    const secret = Buffer.from('a secret of sixteen words');
    for (const by of ['remove', 'finishLoad'] as const) {
      const { medium, pkram } = fresh();
      medium.release = () => {};
      saveNode(pkram, 'node', [{ pages: [], bytes: secret }]);
      assert.ok(Buffer.from(medium.bytes).includes(secret));
      if (by === 'remove') pkram.remove('node', { wipe: true });
      else {
        const load = pkram.prepareLoad('node', { wipe: true });
        load.prepareLoadObject()!.finishLoadObject();
        load.finishLoad();
      }
      assert.ok(!Buffer.from(medium.bytes).includes(secret));
      assert.deepEqual(open(medium.bytes).nodes(), []);
    }
  });
});

describe('any sequence of calls', () => {
  const object = fc.record({
    pages: fc.array(
      fc.record({
        index: fc.oneof(
          fc.bigInt({ min: 0n, max: 2n ** 64n - 40n }),
          fc.nat(50).map((n) => BigInt(n)),
        ),
        flags: fc.integer({ min: 0, max: 0xffff }),
        fill: fc.array(fc.nat(255), { minLength: 1, maxLength: 9 }),
      }),
      { maxLength: 6 },
    ),
    bytes: fc.uint8Array({ maxLength: 20_000 }),
  });
  const name = fc.constantFrom('a', 'b', 'c', 'ü');
  const step = fc.oneof(
    fc.record({ do: fc.constant('save' as const), name, objects: fc.array(object, { maxLength: 4 }) }),
    fc.record({ do: fc.constant('discard' as const), name, objects: fc.array(object, { maxLength: 2 }) }),
    fc.record({ do: fc.constant('load' as const), name, finish: fc.nat(5) }),
    fc.record({ do: fc.constant('remove' as const), name, wipe: fc.boolean() }),
    fc.record({ do: fc.constant('reopen' as const) }),
  );

  const folder = fs.mkdtempSync('/dev/shm/pkram-calls-');
  after(() => fs.rmSync(folder, { recursive: true }));
  const path = join(folder, 'medium');
  /** Each gives an empty medium, to be opened over and over. */
  const media: Record<string, () => () => Medium> = {
    memory: () => {
      let medium = MemoryMedium.formatted(256 << 10, 64 * MIB);
      return () => {
        medium = new MemoryMedium(medium.bytes, 64 * MIB);
        return medium;
      };
    },
    'a file': () => {
      fs.rmSync(path, { force: true });
      return () => FileMedium.open(path, { create: true });
    },
  };

  for (const [where, make] of Object.entries(media)) {
    it(`leaves what a model of it says, in ${where}`, () => leavesWhatTheModelSays(make));
  }

  function leavesWhatTheModelSays(make: () => () => Medium): void {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const medium = make();
        let pkram = openPkram(medium());
        const reopen = () => {
          pkram.close();
          pkram = openPkram(medium());
        };
        const model = new Map<string, readonly ObjectContent[]>();
        for (const step of steps) {
          if (step.do === 'reopen') {
            reopen();
          } else if (step.do === 'save' || step.do === 'discard') {
            if (model.has(step.name)) {
              assert.throws(() => pkram.prepareSave(step.name), UnsupportedError);
              continue;
            }
            const save = pkram.prepareSave(step.name, { checksums: true });
            saveObjects(save, step.objects);
            if (step.do === 'discard') save.discardSave();
            else {
              save.finishSave();
              model.set(step.name, step.objects);
            }
          } else if (!model.has(step.name)) {
            assert.throws(() => pkram.peek(step.name), NoSuchNodeError);
          } else if (step.do === 'remove') {
            pkram.remove(step.name, step);
            model.delete(step.name);
          } else {
            const objects = model.get(step.name)!;
            const load = pkram.prepareLoad(step.name);
            for (let i = 0; i < Math.min(step.finish, objects.length); i++)
              load.prepareLoadObject()!.finishLoadObject();
            if (step.finish >= objects.length) {
              load.finishLoad();
              model.delete(step.name);
            } else {
              load[Symbol.dispose]();
              model.set(step.name, objects.slice(step.finish));
            }
          }
          assert.deepEqual(new Set(pkram.nodes().map((node) => node.name)), new Set(model.keys()));
        }
        const check = () => {
          for (const [node, objects] of model) assert.deepEqual(contentOf(pkram, node), expected(objects));
        };
        check();
        reopen();
        check();
        for (const node of model.keys()) pkram.remove(node);
        assert.equal(pkram.status().used, 128 << 10, 'nothing is lost');
        pkram.close();
      }),
      { numRuns: 60 },
    );
  }
});

describe('a medium that is none', () => {
  it('is refused with the field that says so', () => {
    const empty = new MemoryMedium(new Uint8Array(MIB));
    assert.throws(() => openPkram(empty), FormatError);
    assert.throws(() => openPkram(empty), /magic/);
  });
});
