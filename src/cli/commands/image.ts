/** Looking into images, and turning them into other forms. Works on anybody's image, on any platform. */
import { closeSync, ftruncateSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { count } from '../../image/count.ts';
import type { ImageStore } from '../../image/store.ts';
import { formatRange } from '../../mem/range.ts';
import { command } from '../command.ts';
import { needsDirectory, openStore } from '../criu/images.ts';
import { UsageError } from '../exit.ts';
import type { Output } from '../io.ts';
import { byteSize } from '../progress.ts';
import { printableLine } from '../text.ts';

const image = {
  name: 'DIR',
  summary: 'directory of the image; - is stdin, pkram:NODE a node of preserved memory',
} as const;

const show = command({
  name: 'show',
  summary: 'Show the processes of an image, their memory and their files; of a hibernated machine, what it was',
  description: [
    'DIR may also be the disk or file with the image of a hibernated machine. With --json: {"description", "state", "size", ' +
      '"usage": {zero, cache, cachePrivate, user, free, kernel, total}}, usage in pages.',
  ],
  arguments: [image],
  flags: {
    memory: { long: 'memory', summary: 'list the mappings too' },
    files: { long: 'files', summary: 'list the descriptors too' },
  },
  exits: { 5: 'The image is damaged.' },
  examples: [{ line: 'tideover image show /var/tmp/image --files', does: 'what was running, and what it had open' }],
  async run(_io, { flags, args }) {
    const { isImageFile } = await import('../../hibernate/disks.ts');
    if (isImageFile(args[0] as string)) return showHibernation(args[0] as string);
    const { describe, render } = await import('../../image/show.ts');
    const description = await withStore(args[0] as string, describe);
    return { json: description, text: () => render(description, flags).trimEnd().split('\n') };
  },
});

const verify = command({
  name: 'verify',
  summary: 'Check an image: structure, references, sizes and checksums',
  description: ['With --json: {"faults": [{"code", "message"}]}. Images that CRIU made have no checksums to check.'],
  arguments: [image],
  exits: { 0: 'The image is whole.', 5: 'It is damaged; each fault is named.' },
  async run(io, { args }) {
    const { verify } = await import('../../image/verify.ts');
    await useProcessor();
    const faults = await withStore(args[0] as string, verify);
    for (const fault of faults.slice(0, -1)) io.warn(fault.message);
    const last = faults.at(-1);
    if (last !== undefined) throw last;
    return { json: { faults: [] }, text: () => ['the image is whole'] };
  },
});

const convert = command({
  name: 'convert',
  summary: 'Turn an image into an ELF core file or into JSON, and JSON into an image',
  description: [
    'A core file is of one process and opens in gdb. JSON has the shape that crit shows; pages stay as they are beside ' +
      'it, and it becomes the same image again with --to image.',
  ],
  arguments: [image, { name: 'OUT', summary: 'file of the core, or directory of the JSON or the image' }],
  flags: {
    to: {
      long: 'to',
      value: 'FORM',
      choices: ['core', 'json', 'image'],
      summary: 'core: an ELF core file; json: text; image: back from JSON',
    },
    pid: {
      long: 'pid',
      short: 'p',
      value: 'PID',
      summary: 'the process of the core file; the root of the tree by default',
    },
  },
  exits: { 3: 'The process has no memory, or is of another machine.', 5: 'The image is damaged.' },
  examples: [
    { line: 'tideover image convert /var/tmp/image core --to core --pid 4711', does: 'for gdb' },
    { line: 'tideover image convert /var/tmp/image text --to json', does: 'for an editor' },
  ],
  async run(_io, { flags, args }) {
    const [from, to] = args as [string, string];
    if (flags.to === 'core') await withStore(from, await coreWriter(to, pidOf(flags.pid)));
    else await convertStore(from, to, flags.to);
    return { json: { written: to }, text: () => [] };
  },
});

const dedup = command({
  name: 'dedup',
  summary: 'Take pages out of earlier images that a later one has too',
  description: [
    'DIR is the last of images that build on one another (--prev-images-dir): what it has is punched out of those before it, ' +
      'which give the room back and cannot be restored by themselves any more. What else builds on them must be gone.',
    'With --json: {"images" (before it), "freed" (bytes)}.',
  ],
  arguments: [{ name: 'DIR', summary: 'directory of the last image' }],
  exits: { 5: 'An image is damaged; it and those before it are as they were.' },
  examples: [{ line: 'tideover image dedup /var/tmp/2', does: 'as criu dedup' }],
  async run(io, { args }) {
    needsDirectory(args[0] as string, 'dedup');
    const { dedup } = await import('../../image/dedup.ts');
    await useProcessor();
    const { punchHole, writers } = await import('../../process/disk.ts');
    const result = dedup(args[0] as string, punchHole, writers);
    io.info(`${byteSize(result.freed)} of ${count(result.images, 'earlier image')}`);
    return { json: result, text: () => [] };
  },
});

export const imageCommand = command({
  name: 'image',
  group: 'Processes',
  summary: 'Look into images, check, convert and thin them',
  commands: [show, verify, convert, dedup],
});

async function withStore<T>(directory: string, use: (store: ImageStore) => T): Promise<T> {
  const store = await openStore(directory);
  try {
    return use(store);
  } finally {
    store.close();
  }
}

function pidOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d*$/.test(text)) throw new UsageError(`--pid: '${text}' is no process id`);
  return Number(text);
}

async function showHibernation(path: string): Promise<Output> {
  const { describeImage } = await import('../../hibernate/restore.ts');
  const { memoryUsage } = await import('../../crash/filter/usage.ts');
  const found = describeImage({ path });
  const usage = memoryUsage({ paths: [path] });
  const { description, state, size } = found;
  const mib = (pages: number) => byteSize(pages * 4096);
  return {
    json: { ...found, usage },
    text: () =>
      [
        `hibernated machine: ${description.release}, saved ${new Date(description.saved).toISOString()}, ${state}`,
        `processors: ${description.cpu.count} of ${description.cpu.vendor} ${description.cpu.model}`,
        `saved by: ${description.saver}, in ${formatRange(description.region)}; goes on at 0x${description.entry.toString(16)}`,
        `image: ${byteSize(size)} for ${mib(usage.total)} of memory`,
        `memory: processes ${mib(usage.user)}, page cache ${mib(usage.cache + usage.cachePrivate)}, kernel ${mib(usage.kernel)}, ` +
          `zeros ${mib(usage.zero)}, free ${mib(usage.free)}`,
      ].map(printableLine),
  };
}

/** Writes under a temporary name, which becomes the wanted one when the file is whole. */
async function coreWriter(path: string, pid: number | undefined): Promise<(store: ImageStore) => void> {
  const { writeCore } = await import('../../image/elfcore.ts');
  return (store) => {
    const partial = `${path}.partial-${process.pid}`;
    const fd = openSync(partial, 'wx', 0o600);
    try {
      const output = {
        write(bytes: Uint8Array, position: number) {
          for (let done = 0; done < bytes.length; ) {
            done += writeSync(fd, bytes, done, bytes.length - done, position + done);
          }
        },
        finish: (size: number) => ftruncateSync(fd, size),
      };
      writeCore(store, output, pid);
      renameSync(partial, path);
    } finally {
      closeSync(fd);
      rmSync(partial, { force: true });
    }
  };
}

async function convertStore(from: string, to: string, form: 'json' | 'image'): Promise<void> {
  const { storeToJson, storeFromJson } = await import('../../image/json.ts');
  const { createDirectory } = await import('../../image/directory.ts');
  const { readInfo } = await import('../../image/tree.ts');
  const { writers } = await import('../../process/disk.ts');
  await withStore(from, (store) => {
    const draft = createDirectory(to, readInfo(store), { writers });
    try {
      if (form === 'json') storeToJson(store, draft);
      else storeFromJson(store, draft);
      draft.commit();
    } catch (error) {
      draft.abort();
      throw error;
    }
  });
}

/** Sums are as fast as the processor has them; an image is read on any machine. */
async function useProcessor(): Promise<void> {
  if (process.platform === 'linux' && process.arch === 'x64') (await import('../../sys/crc32.ts')).useProcessor();
}
