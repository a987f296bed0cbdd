import { closeSync, readSync, writeSync } from 'node:fs';
import { count } from '../../image/count.ts';
import { command, type Flags } from '../command.ts';
import { imageFlags, needsDirectory, openStore } from '../criu/images.ts';
import { ABOUT_OTHERS, otherOptions, refuseUnbuilt } from '../criu/options.ts';
import { pageServerFlags, remotePages } from '../criu/pageserver.ts';
import { byteSize } from '../progress.ts';

const flags = {
  imagesDir: imageFlags.imagesDir,
  workDir: imageFlags.workDir,
  ...pageServerFlags,
  pageServer: { long: 'page-server', summary: 'ask for what is not in the image: checkpoint --lazy-pages has it' },
  started: { long: 'started', hidden: true, summary: 'a restore has started it' },
} as const satisfies Flags;

export const lazyPages = command({
  name: 'lazy-pages',
  group: 'Processes',
  summary: 'Bring the pages of a restore that goes on without them',
  description: [
    'Waits for tideover restore --lazy-pages with the same directories, which would start one by itself, brings the pages that ' +
      'are touched and all others meanwhile, and ends when all are there.',
    'With --page-server pages that are not in the image come from the tideover or CRIU that has saved it with --lazy-pages, and ' +
      'that ends what it has saved when all are here.',
    'A second, small process guards it: if this one is killed, the restored processes are killed, as they would find zeros in ' +
      'place of their memory. lazy-pages.log says so then.',
    ABOUT_OTHERS,
    'With --json: {"processes", "demanded" (bytes that were touched before they were there), "background" (all others)}.',
  ],
  flags: { ...flags, ...otherOptions(flags) },
  exits: {
    0: 'All pages are there.',
    1: 'They cannot be read, or another failure; the restored processes are killed.',
    5: 'The image is damaged; the restored processes are killed.',
  },
  async run(io, { flags }) {
    refuseUnbuilt(flags);
    const directory = flags.imagesDir ?? '.';
    needsDirectory(directory, 'lazy-pages');
    const { bringPages, LazyImage } = await import('../../process/lazypages.ts');
    const { READY } = await import('../../process/lazy.ts');
    const { awaitRestore, openLog, SOCKET } = await import('../criu/lazy.ts');
    const image = new LazyImage(await openStore(directory), await remotePages(flags));
    const log = openLog(flags);
    const socket = flags.started ? SOCKET : awaitRestore(flags);
    const text = readLine(socket);
    // Whoever was to restore has given up.
    if (text === '') return { json: { processes: 0, demanded: 0, background: 0 }, text: () => [] };
    const result = bringPages(image, JSON.parse(text), {
      log,
      ready: () => answer(socket, READY),
      filled: ({ processes, demanded, background }) =>
        io.detail(
          `lazy-pages: ${count(processes, 'process', 'es')}, ${byteSize(demanded)} on demand, ${byteSize(background)} without`,
        ),
    });
    return { json: result, text: () => [] };
  },
});

function readLine(fd: number): string {
  const parts: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(65536);
    const got = readSync(fd, buffer);
    parts.push(buffer.subarray(0, got));
    if (got === 0) return '';
    if (buffer[got - 1] === 0x0a) return Buffer.concat(parts).toString();
  }
}

function answer(fd: number, text: string): void {
  writeSync(fd, text);
  closeSync(fd);
}
