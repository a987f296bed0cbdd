import type { Readable } from 'node:stream';
import type { FilesCount, Pkram } from '../../pkram/index.ts';
import type { Holding, MediumOptions } from '../../update/medium.ts';
import { type Command, command } from '../command.ts';
import { UsageError } from '../exit.ts';
import type { Io, Output, View } from '../io.ts';
import { byteSize } from '../progress.ts';
import { table } from '../table.ts';
import { printableLine } from '../text.ts';

/** What the command says of nodes that hold what came from stdin. */
const BYTES_CONTENT = 'bytes';

const medium = {
  long: 'medium',
  short: 'm',
  value: 'MEDIUM',
  summary:
    'memory, which lasts over a kexec; memory:FROM-TO, a region that memmap= reserved; or a file, or directory with it, which lasts ' +
    'over a power-off [$TIDEOVER_PKRAM; memory where there is some already, else /var/lib/tideover/pkram]',
} as const;

const exits = {
  1: 'There is no such node, there is no room, or a file could not be read or written.',
  3:
    'Another process has the medium open, a node of that name is there already, huge pages are missing, the memory is not ' +
    'there, or a right is missing.',
  5: 'The medium or the node is damaged. Other nodes can be used.',
} as const;

const ls = command({
  name: 'ls',
  aliases: ['list'],
  summary: 'List the nodes',
  description: [
    'With --json: {"nodes": [{name, id, content, created, writer, checksums, objects, objectsTaken, pages, bytes, held, ' +
      'fault?}], "fault"?, "holding"?: {holder, size, returnable, reason?}}; bytes count the byte streams, held is what the ' +
      'node takes of the medium, fault is why it cannot be loaded. holding is of memory: how much of it the system can have ' +
      'back, and why not more.',
  ],
  flags: { medium },
  exits,
  run: (io, { flags }) => list(io, flags.medium),
});

const save = command({
  name: 'save',
  summary: 'Save files, a directory or what comes from stdin as a node',
  description: [
    'Files are kept with names, modes, owners, times, extended attributes, holes and links. One directory is saved as ' +
      'what is in it; several paths are saved by their last names. The node is there when the command is done, or not at all.',
    'With --json: {"name", "content", "pages", "bytes", "files"?, "held"}.',
  ],
  arguments: [
    { name: 'NAME', summary: 'name of the node, at most 255 bytes' },
    { name: 'PATH', summary: 'files or directories, or - for stdin', variadic: true },
  ],
  flags: {
    medium,
    limit: { long: 'limit', value: 'SIZE', summary: 'most that the medium may hold in all, such as 512M or 8G' },
    checksum: { long: 'checksum', summary: 'keep checksums of the contents, which loading verifies' },
  },
  exits,
  examples: [
    { line: 'tideover pkram save cache /var/cache/app', does: 'the directory, as the node "cache"' },
    { line: 'pg_dump db | tideover pkram save dump -', does: 'a stream' },
    { line: 'tideover pkram save cache /var/cache/app -m memory', does: 'into memory, for the next kernel' },
  ],
  run: (io, { flags, args }) => saveNode(io, args[0] as string, args[1] as readonly string[], flags),
});

const load = command({
  name: 'load',
  summary: 'Load a node, and take it off the list',
  description: [
    'Files go to the directory, a stream to a new file or to stdout. Only when all of it is written the node is removed.',
    'With --json: {"name", "content", "files"?, "bytes", "kept"}; after the data where they go to stdout.',
  ],
  arguments: [
    { name: 'NAME', summary: 'name of the node' },
    { name: 'TO', summary: 'directory for files [.]; for a stream a new file, or - for stdout [-]', optional: true },
  ],
  flags: {
    medium,
    keep: { long: 'keep', summary: 'leave the node on the list' },
    wipe: { long: 'wipe', summary: 'overwrite its contents in the medium afterwards' },
  },
  exits: { ...exits, 4: 'Failed after a part of the files was written. The node is still there.' },
  run: (io, { flags, args }) => loadNode(io, args[0] as string, args[1] as string | undefined, flags),
});

const rm = command({
  name: 'rm',
  aliases: ['remove'],
  summary: 'Remove a node',
  description: ['With --json: {"removed"}, the name or the number.'],
  arguments: [{ name: 'NAME', summary: 'name of the node', optional: true }],
  flags: {
    medium,
    wipe: { long: 'wipe', summary: 'overwrite its contents in the medium' },
    id: { long: 'id', value: 'N', summary: 'by its number in ls --json, where the name cannot be read' },
  },
  exits,
  run: (_io, { flags, args }) => remove(args[0] as string | undefined, flags),
});

const init = command({
  name: 'init',
  summary: 'Make a medium before anything is saved',
  description: [
    'Memory keeps the place of its superblock from then on, so that a capture kernel loaded now finds what is saved later. Where ' +
      'there is a medium nothing is changed.',
    'With --json: {"medium", "size" in bytes, "ranges", "parameter"?}; parameter is what tells another kernel where it is.',
  ],
  flags: {
    medium,
    size: { long: 'size', value: 'SIZE', summary: 'least size in memory, such as 2G; it grows by itself' },
  },
  exits,
  examples: [{ line: 'tideover pkram init -m memory --size 1G', does: 'a gigabyte of huge pages, taken now' }],
  run: (_io, { flags }) => makeMedium(flags.medium, flags.size),
});

const release = command({
  name: 'release',
  summary: 'Give the memory of a medium back to the system',
  description: [
    'There must be no nodes left, unless --force. Huge pages of this kernel all go back. What an earlier kernel left goes back in ' +
      'whole memory blocks (mostly 128 MiB), by the drivers dax_hmem and kmem, where it was kept as soft-reserved memory; the rest ' +
      'is free for the next kernel that is loaded.',
    'With --json: {"size", "returned"} in bytes.',
  ],
  flags: { medium, force: { long: 'force', summary: 'also with nodes in it, which are lost' } },
  exits: { ...exits, 3: `There are nodes, or a driver is missing. ${exits[3]}` },
  run: (_io, { flags }) => giveBack(flags.medium, flags.force),
});

const status = command({
  name: 'status',
  summary: 'Show the medium and its room',
  description: [
    'With --json: {"medium", "exists", "uuid", "sequence", "nodes", "damagedNodes", "size", "used", "free", "ranges": [{start, ' +
      'size}], "moved", "writer", "kernel", "parameter"?, "holding"?}; sizes in bytes, moved says that pages are elsewhere than ' +
      'the medium says, holding is as in ls.',
  ],
  flags: { medium },
  exits,
  run: (_io, { flags }) => showStatus(flags.medium),
});

export const pkram: Command = command({
  name: 'pkram',
  group: 'State in memory',
  summary: 'Preserved memory: named contents that are kept over a change of kernels',
  commands: [ls, save, load, rm, status, init, release],
});

interface MediumFlag {
  readonly medium: string | undefined;
}

/** Opens the medium, calls `use` and closes it. */
async function withPkram<T>(
  given: string | undefined,
  options: MediumOptions,
  use: (pkram: Pkram, holding: Holding | undefined) => T | Promise<T>,
): Promise<T> {
  const { holdingOf, openMedium } = await import('../../update/medium.ts');
  const { placeOf } = await import('../medium.ts');
  const place = placeOf(given);
  const pkram = openMedium(place, options);
  try {
    return await use(pkram, holdingOf(place, pkram));
  } finally {
    pkram.close();
  }
}

/** undefined where there is no medium yet: nothing is preserved then. */
async function lookInto<T>(
  given: string | undefined,
  use: (pkram: Pkram, holding: Holding | undefined) => T,
): Promise<T | undefined> {
  try {
    return await withPkram(given, { readOnly: true }, use);
  } catch (error) {
    const { isAbsent } = await import('../../update/medium.ts');
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

async function list(io: Io, given: string | undefined): Promise<Output> {
  const found = await lookInto(given, (pkram, holding) => ({ nodes: pkram.nodes(), fault: pkram.listFault, holding }));
  const { nodes = [], fault, holding } = found ?? {};
  for (const node of nodes) if (node.fault !== undefined) io.warn(`${nameOf(node)} is damaged: ${node.fault}`);
  if (fault !== undefined) io.warn(`the node list is damaged, and other nodes may have been on it: ${fault}`);
  const rows = nodes.map((node) => [
    nameOf(node),
    node.fault !== undefined ? 'damaged' : node.content || '-',
    byteSize(node.held),
    `${node.objects ?? '?'}`,
    node.created?.toISOString().replace(/\.\d+/, '') ?? '?',
  ]);
  const columns = [
    { title: 'Node', overflow: 'truncate' as const },
    { title: 'Content', style: (cell: string) => (cell === 'damaged' ? ('red' as const) : undefined) },
    { title: 'Held', align: 'right' as const },
    { title: 'Objects', align: 'right' as const },
    { title: 'Saved' },
  ];
  return {
    json: { nodes, ...(fault !== undefined && { fault }), ...(holding && { holding }) },
    text: (view: View) => [
      ...(nodes.length === 0 ? ['no nodes'] : table(columns, rows, view)),
      ...holdingLines(holding),
    ],
  };
}

function holdingLines(holding: Holding | undefined): string[] {
  if (holding === undefined) return [];
  const { holder, size, returnable, reason } = holding;
  const rest = reason === undefined ? '' : `; ${reason}`;
  return [`${byteSize(size)} held by ${printableLine(holder)}, ${byteSize(returnable)} can be returned${rest}`];
}

function nameOf({ name, id }: { name: string | undefined; id: number }): string {
  return name ?? `(number ${id})`;
}

interface SaveFlags extends MediumFlag {
  readonly limit: string | undefined;
  readonly checksum: boolean;
}

async function saveNode(io: Io, name: string, paths: readonly string[], flags: SaveFlags): Promise<Output> {
  if (paths.includes('-') && paths.length > 1) throw new UsageError('- stands for stdin and goes with no other path');
  const limit = flags.limit === undefined ? {} : { limit: sizeOf('--limit', flags.limit) };
  const fromStdin = paths[0] === '-';
  return withPkram(flags.medium, { create: true, ...limit }, async (preserved) => {
    const { FILES_CONTENT } = await import('../../pkram/index.ts');
    const content = fromStdin ? BYTES_CONTENT : FILES_CONTENT;
    const node = preserved.prepareSave(name, { content, checksums: flags.checksum });
    const progress = io.progress({ label: `saving ${name}`, unit: 'bytes' });
    try {
      const object = node.prepareSaveObject();
      let count: FilesCount | undefined;
      if (fromStdin) {
        let done = 0;
        for await (const chunk of process.stdin) {
          io.signal.throwIfAborted();
          object.write(chunk as Buffer);
          done += (chunk as Buffer).length;
          progress.update(done);
        }
      } else count = await saveFiles(object, paths, (done) => progress.update(done));
      object.finishSaveObject();
      io.signal.throwIfAborted();
      const { pageCount, byteCount } = node.finishSave();
      const held = preserved.nodes().find((each) => each.name === name)!.held;
      return {
        json: { name, content, pages: pageCount, bytes: byteCount, ...(count && { files: count.files }), held },
        text: () => [`${printableLine(name)}: ${byteSize(held)}`],
      };
    } finally {
      progress.end();
      node[Symbol.dispose]();
    }
  });
}

type SavedObject = ReturnType<ReturnType<Pkram['prepareSave']>['prepareSaveObject']>;

async function saveFiles(object: SavedObject, paths: readonly string[], onBytes: (done: number) => void) {
  const { preserveFiles } = await import('../../pkram/index.ts');
  const { statSync } = await import('node:fs');
  const [only] = paths;
  const isDirectory = paths.length === 1 && statSync(only!).isDirectory();
  const count = preserveFiles(object, isDirectory ? only! : paths, onBytes);
  // Lets a signal that came meanwhile be seen.
  await new Promise((resolve) => setImmediate(resolve));
  return count;
}

interface LoadFlags extends MediumFlag {
  readonly keep: boolean;
  readonly wipe: boolean;
}

async function loadNode(io: Io, name: string, to: string | undefined, flags: LoadFlags): Promise<Output> {
  if (flags.keep && flags.wipe) throw new UsageError('--keep and --wipe exclude each other');
  return withPkram(flags.medium, { readOnly: flags.keep }, async (preserved) => {
    const { FILES_CONTENT } = await import('../../pkram/index.ts');
    const { UnsupportedError } = await import('../../errors.ts');
    // Taken off the list only when all is written, so that what fails can be tried again.
    const peek = preserved.peek(name, { verify: true });
    const { content, byteCount } = peek.node;
    const progress = io.progress({ label: `loading ${name}`, unit: 'bytes' });
    let count: FilesCount | undefined;
    try {
      const [object] = peek.objects();
      if (object !== undefined && content === FILES_CONTENT) {
        if (to === '-') throw new UsageError(`${name} holds files: name a directory for them`);
        count = await loadFiles(object, to ?? '.', name, (done) => progress.update(done));
      } else if (object !== undefined && content === BYTES_CONTENT) {
        const { pipeline } = await import('node:stream/promises');
        if (to === undefined || to === '-') await pipeline(object.readable(), process.stdout, { end: false });
        else await toNewFile(object.readable(), to);
      } else {
        throw new UnsupportedError({
          what: `loading node ${JSON.stringify(name)}`,
          why: `it holds ${content === '' ? 'what a program saved' : `content of the kind ${JSON.stringify(content)}`}`,
          remedy: 'load it with the program that saved it',
        });
      }
    } finally {
      progress.end();
      peek[Symbol.dispose]();
    }
    io.signal.throwIfAborted();
    if (!flags.keep) {
      // What comes from there is to be on its disk first.
      if (count !== undefined) (await import('../../sys/folder.ts')).syncFileSystem(to ?? '.');
      preserved.remove(name, { wipe: flags.wipe });
    }
    const bytes = count?.bytes ?? byteCount;
    const json = { name, content, ...(count && { files: count.files }), bytes, kept: flags.keep };
    return { json, text: () => (count ? [`${printableLine(name)}: ${count.files} files, ${byteSize(bytes)}`] : []) };
  });
}

/** On the disk when this is done; where it fails there is none. @throws EEXIST */
async function toNewFile(content: Readable, path: string): Promise<void> {
  const { createWriteStream, openSync, rmSync } = await import('node:fs');
  const { pipeline } = await import('node:stream/promises');
  const fd = openSync(path, 'wx', 0o600);
  try {
    await pipeline(content, createWriteStream(path, { fd, flush: true }));
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  }
}

type LoadedObject = Parameters<typeof import('../../pkram/index.ts')['restoreFiles']>[0];

async function loadFiles(object: LoadedObject, to: string, name: string, onBytes: (done: number) => void) {
  const { restoreFiles } = await import('../../pkram/index.ts');
  const { FormatError, PartialError, VerifyError } = await import('../../errors.ts');
  let isChanged = false;
  try {
    return restoreFiles(object, to, `node ${JSON.stringify(name)}`, (done) => {
      isChanged = true;
      onBytes(done);
    });
  } catch (error) {
    if (!isChanged || error instanceof FormatError || error instanceof VerifyError) throw error;
    const state = `${to} holds a part of the files, the node is whole (${(error as Error).message})`;
    throw new PartialError(`loading node ${JSON.stringify(name)}`, state, { cause: error });
  }
}

interface RemoveFlags extends MediumFlag {
  readonly wipe: boolean;
  readonly id: string | undefined;
}

async function remove(name: string | undefined, flags: RemoveFlags): Promise<Output> {
  if ((name === undefined) === (flags.id === undefined)) throw new UsageError('give either a name or --id');
  if (flags.id !== undefined && !/^\d{1,15}$/.test(flags.id)) throw new UsageError(`--id ${flags.id}: not a number`);
  const removed = name ?? Number(flags.id);
  return withPkram(flags.medium, {}, (preserved) => {
    preserved.remove(removed, { wipe: flags.wipe });
    return { json: { removed }, text: () => [] };
  });
}

async function makeMedium(given: string | undefined, size: string | undefined): Promise<Output> {
  const least = size === undefined ? {} : { size: sizeOf('--size', size) };
  return withPkram(given, { create: true, ...least }, (preserved, holding) => {
    const { medium: name, size: bytes, ranges } = preserved.status();
    const json = { medium: name, size: bytes, ranges: ranges.length, ...(holding && { parameter: holding.parameter }) };
    const where = holding === undefined ? [] : [`another kernel finds it by ${holding.parameter}`];
    return { json, text: () => [`${printableLine(name)}: ${byteSize(bytes)}`, ...where] };
  });
}

async function giveBack(given: string | undefined, force: boolean): Promise<Output> {
  const { returnMemory } = await import('../../update/medium.ts');
  const { placeOf } = await import('../medium.ts');
  const result = await returnMemory(placeOf(given), force);
  return {
    json: result,
    text: () => [`${byteSize(result.returned)} of ${byteSize(result.size)} are ordinary memory again`],
  };
}

async function showStatus(given: string | undefined): Promise<Output> {
  const found = await lookInto(given, (preserved, holding) => ({ now: preserved.status(), holding }));
  if (found === undefined) {
    const { placeName, placeOf } = await import('../medium.ts');
    const name = placeName(given, placeOf(given));
    return { json: { medium: name, exists: false }, text: () => [`nothing is preserved in ${printableLine(name)}`] };
  }
  const { now, holding } = found;
  const { frozen: _readOnly, ...shown } = now;
  const { parameter, ...held } = holding ?? {};
  return {
    json: { ...shown, exists: true, ...(holding && { parameter, holding: held }) },
    text: () => [
      `medium: ${printableLine(now.medium)}`,
      `nodes: ${now.nodes}${now.damagedNodes > 0 ? `, ${now.damagedNodes} of them damaged` : ''}`,
      `in use: ${byteSize(now.used)} of ${byteSize(now.size)}`,
      `last change: by ${printableLine(now.writer)} under Linux ${printableLine(now.kernel)}`,
      ...(holding === undefined ? [] : [`another kernel finds it by ${holding.parameter}`]),
      ...holdingLines(holding),
    ],
  };
}

function sizeOf(flag: string, text: string): number {
  const match = /^(\d+)([KMGT]?)(?:iB|B)?$/i.exec(text);
  const bytes =
    match === null ? Number.NaN : Number(match[1]) * 1024 ** ' KMGT'.indexOf(match[2]!.toUpperCase() || ' ');
  if (!Number.isSafeInteger(bytes)) throw new UsageError(`${flag} ${text}: not a size, like 512M`);
  return bytes;
}
